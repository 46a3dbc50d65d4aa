"""CHECKFILE, and STATUS?file_access: whether a file is what it was when it came in."""

from __future__ import annotations

from .call import Call
from .checksums import checksum_named
from .copies import open_file
from .node import Node
from .records import StoredFile
from .refusals import Refusal, missing, ngams
from .replies import Reply
from .vault import BodyReader, ObjectReader, checksum_of


async def checkfile(call: Call) -> Reply:
    """CHECKFILE: reads a file (version 1 by default) and compares size and checksum. A bad file is a SUCCESS too."""
    file_id = call.text("file_id")
    if file_id is None:
        raise Refusal("Must specify a File ID for the CHECKFILE command.")
    version = call.integer("file_version") or 1
    if call.text("host_id") not in (None, call.node.host_id):
        raise missing(file_id, version)
    disk_id = call.text("disk_id")
    copies = call.node.catalogue.copies_with_bodies(file_id, version)
    chosen = next(((copy, body) for copy, body in copies if disk_id in (None, copy.disk_id)), None)
    if chosen is None:
        raise missing(file_id, version)
    copy, body = chosen
    fault = await call.node.run(_fault, call.node, copy, body)
    slot_id = call.node.volume(copy.disk_id).slot_id
    checked = (file_id, version, copy.disk_id, slot_id, call.node.host_id)
    if fault is None:
        return call.success(ngams("NGAMS_INFO_FILE_OK", *checked))
    # "Descrepancy" is the protocol's own spelling.
    return call.success(ngams("NGAMS_ER_FILE_NOK", *checked, f". Descrepancy: ERROR: {fault}"))


async def file_access(call: Call, file_id: str) -> Reply:
    """STATUS?file_access: says that a file can be retrieved. Where the real server fails with a TypeError, a file that
    cannot is refused as by RETRIEVE."""
    copy, reader = await open_file(call.node, file_id, call.version(), call.text("disk_id"))
    reader.close()
    message = ngams("NGAMS_INFO_FILE_AVAIL", f"{file_id}/Version: {copy.file_version}", call.node.host_id)
    return call.success(message)


def _fault(node: Node, copy: StoredFile, body: bytes | None) -> str | None:
    reader = BodyReader(body) if body is not None else _open(node, copy)
    try:
        if reader.size != copy.file_size:
            return "Inconsistent file size found"
        checksum = checksum_named(copy.checksum_plugin)
        if checksum is None:
            return "Missing checksum"
        return None if str(checksum_of(reader, checksum)) == copy.checksum else "Inconsistent checksum found"
    finally:
        reader.close()


def _open(node: Node, copy: StoredFile) -> ObjectReader:
    try:
        return ObjectReader(node.object_path(copy))
    except FileNotFoundError:
        raise missing(copy.file_id, copy.file_version) from None
