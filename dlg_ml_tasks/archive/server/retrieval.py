"""RETRIEVE: sending a file."""

from __future__ import annotations

import re

from .call import Call, Request
from .copies import open_file
from .header_fields import header_parameter
from .records import StoredFile
from .refusals import Refusal, missing, ngams
from .replies import XML, FileReply, Reply
from .status_document import DTD
from .vault import BodyReader

_RANGE = re.compile(r"bytes=(\d+)-")


async def retrieve(call: Call) -> Reply | FileReply:
    """The file, or with `Range: bytes=N-` its rest: answered 200 with a Content-Range, not 206, as NGAS does."""
    call.node.require_online("Retrieve Request")
    internal = call.text("internal")
    if internal == "ngamsStatus.dtd":
        return Reply(DTD.encode(), XML)
    file_id = call.text("file_id")
    if file_id is None or internal is not None:
        raise Refusal(ngams("NGAMS_ER_RETRIEVE_CMD"))
    if call.text("processing") is not None:
        raise Refusal("Processing plug-ins are not available on the embedded server; use a real NGAS")
    version = call.version()
    if call.text("host_id") not in (None, call.node.host_id):
        raise missing(file_id, version)
    start = _start(call.request)
    stored, reader = await open_file(call.node, file_id, version, call.text("disk_id"))
    if start > reader.size:
        reader.close()
        raise Refusal(f"Invalid Range header: the file has {reader.size} bytes, cannot start at byte {start}", 416)
    headers = _headers(stored, start)
    if isinstance(reader, BodyReader):
        return Reply(reader.body[start:], headers)
    return FileReply(reader, start, headers)


def _start(request: Request) -> int:
    header = request.headers.get("range")
    if header is None:
        return 0
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        raise Refusal("Invalid Range header, must have the form 'bytes=start-' (start offset only)")
    return int(match[1])


def _headers(stored: StoredFile, start: int) -> dict[str, str]:
    size, name = stored.file_size, stored.file_name.rpartition("/")[2]
    headers = {
        "Content-Type": stored.format,
        "Content-Length": str(size - start),
        "Content-Disposition": f"attachment; {header_parameter('filename', name)}",
    }
    if start:
        headers |= {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return headers
