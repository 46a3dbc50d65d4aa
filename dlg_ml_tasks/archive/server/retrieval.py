"""RETRIEVE: sending a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .call import Call
from .catalogue import StoredFile
from .node import Node
from .refusals import Refusal, missing, ngams
from .status_document import DTD
from .vault import ObjectReader

_RANGE = re.compile(r"bytes=(\d+)-")


async def retrieve(call: Call) -> Response:
    """The file, or with `Range: bytes=N-` its rest: answered 200 with a Content-Range, not 206, as NGAS does."""
    call.node.require_online("Retrieve Request")
    internal = call.text("internal")
    if internal == "ngamsStatus.dtd":
        return Response(DTD, media_type="text/xml")
    file_id = call.text("file_id")
    if file_id is None or internal is not None:
        raise Refusal(ngams("NGAMS_ER_RETRIEVE_CMD"))
    if call.text("processing") is not None:
        raise Refusal("Processing plug-ins are not available on the embedded server; use a real NGAS")
    version = call.version()
    if call.text("disk_id") not in (None, call.node.disk_id) or call.text("host_id") not in (None, call.node.host_id):
        raise missing(file_id, version)
    start = _start(call.request)
    stored, reader = await call.node.run(_open, call.node, file_id, version, start)
    if start > reader.size:
        reader.close()
        raise Refusal(f"Invalid Range header: the file has {reader.size} bytes, cannot start at byte {start}", 416)
    return _FileResponse(call.node, stored, reader, start)


class _FileResponse(Response):
    """A file from byte `start`, read block by block in a thread. Closes `reader` when it is sent or not wanted."""

    def __init__(self, node: Node, stored: StoredFile, reader: ObjectReader, start: int) -> None:
        self._node = node
        self._reader = reader
        self._start = start
        super().__init__(headers=_headers(stored, reader.size, start), media_type=stored.format)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send_blocks(Request(scope, receive), send)
        finally:
            self._reader.close()

    async def _send_blocks(self, request: Request, send: Send) -> None:
        remaining = self._reader.size - self._start
        while remaining > 0 and not await request.is_disconnected():
            block = await self._node.run(self._reader.read)
            if not block:
                # Too late for a refusal: the server closes the connection, and the client misses the bytes.
                raise OSError(
                    f"An archived file ends {remaining} bytes early: somebody is changing the archive's files"
                )
            remaining -= len(block)
            await send({"type": "http.response.body", "body": block, "more_body": remaining > 0})
        if self._start == self._reader.size:
            await send({"type": "http.response.body", "body": b""})

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        # Response would declare the length of the body it holds, which is none.
        self.raw_headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]


def _open(node: Node, file_id: str, version: int | None, start: int) -> tuple[StoredFile, ObjectReader]:
    tried = ""
    while True:
        stored = node.catalogue.find(file_id, version)
        if stored is None or stored.object == tried:
            raise missing(file_id, version)
        try:
            return stored, ObjectReader(node.vault.path(stored.object), start)
        except FileNotFoundError:
            # Replaced or discarded since the row was read, or lost: the row tells which.
            tried = stored.object


def _start(request: Request) -> int:
    header = request.headers.get("range")
    if header is None:
        return 0
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        raise Refusal("Invalid Range header, must have the form 'bytes=start-' (start offset only)")
    return int(match[1])


def _headers(stored: StoredFile, size: int, start: int) -> dict[str, str]:
    headers = {
        "Content-Type": stored.format,
        "Content-Length": str(size - start),
        "Content-Disposition": _disposition(stored.file_name.rpartition("/")[2]),
    }
    if start:
        headers |= {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return headers


def _disposition(name: str) -> str:
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'attachment; filename="{escaped}"'
    return f"attachment; filename*=UTF-8''{quote(name)}"
