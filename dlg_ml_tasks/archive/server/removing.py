"""DISCARD and REMFILE: the two ways to delete a copy of a file."""

from __future__ import annotations

import asyncio

from .call import Call
from .records import StoredFile
from .refusals import Refusal, ngams
from .replies import Reply

# REMFILE leaves so many copies of a file alone.
_LEAST_COPIES = 3


async def discard(call: Call) -> Reply:
    """DISCARD one copy, named by all of file_id, file_version and disk_id; a rehearsal without execute=1.

    The real command also deletes any path of the machine it is given; this one knows nothing but its own files.
    """
    if call.text("path") is not None:
        raise Refusal(ngams("NGAMS_ER_ILL_REQ", "Discard by path") + " Give disk_id, file_id and file_version.")
    file_id, disk_id, version = call.text("file_id"), call.text("disk_id"), call.integer("file_version")
    if not (file_id and disk_id and version):
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "DISCARD", "disk_id=ID&file_id=ID&file_version=VER are needed"))
    execute = _execute(call)
    if execute:
        found = await asyncio.shield(asyncio.wrap_future(call.node.catalogue.discard(file_id, version, disk_id)))
    else:
        copies = call.node.catalogue.copies(file_id, version)
        found = next((copy for copy in copies if copy.disk_id == disk_id), None)
    name = f"Disk ID: {disk_id}/File ID: {file_id}/File Version: {version}"
    if found is None:
        raise Refusal(ngams("NGAMS_ER_DISCARD_NOT_FOUND", name, call.node.host_id), 200)
    if execute:
        await call.node.run(call.node.delete_objects, [found])
    done = "NGAMS_INFO_DISCARD_OK" if execute else "NGAMS_INFO_DISCARD_GRANTED"
    return call.success(ngams(done, name, call.node.host_id))


async def remfile(call: Call) -> Reply:
    """REMFILE: delete the copies of a file on a disk, of which others on two more disks must exist.

    All versions, or the one given; a rehearsal without execute=1.
    """
    disk_id, file_id, version = call.text("disk_id"), call.text("file_id"), call.integer("file_version")
    if not (disk_id and file_id):
        named = f"Disk ID: {disk_id or ''}, File ID: {file_id or ''}, File Version: {version or -1}"
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "REMFILE", named))
    if version is not None and version < 1:
        version = None
    execute = _execute(call)
    selected = call.node.catalogue.select("WHERE file_id = ? AND disk_id = ?", file_id, disk_id)
    if version is not None:
        selected = [copy for copy in selected if copy.file_version == version]
    if execute:
        deleted = await _delete_spare(call, selected)
    else:
        deleted = None if _lacks_copies(call, selected) else []
    if deleted is None:
        message = f"{ngams('NGAMS_WA_FILE_COPIES')} Cannot remove item: {disk_id}/{file_id}/{version}"
        raise Refusal(message, 200)
    return call.success(ngams("NGAMS_INFO_FILE_DEL_STAT", len(selected), len(deleted), 0))


async def _delete_spare(call: Call, selected: list[StoredFile]) -> list[StoredFile] | None:
    forgetting = call.node.catalogue.discard_spare(selected, _LEAST_COPIES)
    deleted = await asyncio.shield(asyncio.wrap_future(forgetting))
    if deleted:
        await call.node.run(call.node.delete_objects, deleted)
    return deleted


def _lacks_copies(call: Call, selected: list[StoredFile]) -> bool:
    catalogue = call.node.catalogue
    return any(len(catalogue.copies(copy.file_id, copy.file_version)) < _LEAST_COPIES for copy in selected)


def _execute(call: Call) -> bool:
    execute = call.text("execute") or "0"
    if not execute.isdecimal():
        raise Refusal(ngams("NGAMS_ER_REQ_HANDLING", "Must provide proper value for parameter: execute (0|1)"))
    return bool(int(execute))
