"""CLONE: a further copy of a file on another disk of this server."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from .call import Call
from .checksums import checksum_named
from .copies import open_file
from .node import Node
from .records import StoredFile
from .refusals import Refusal, ngams
from .replies import Reply
from .space import NoRoom, Reservation, is_full
from .vault import Reader, StagedFile

logger = logging.getLogger(__name__)


async def clone(call: Call) -> Reply:
    """CLONE the latest version of a file, or the one given, or all files of a disk: each to the disk with the most room
    of those that have no copy, or to `target_disk_id`. With async=1 the answer does not wait for it."""
    call.node.require_online("Command CLONE")
    selected = await call.node.run(_selected, call)
    if not selected:
        raise Refusal(ngams("NGAMS_ER_CMD_EXEC", "CLONE", "No files for cloning found"))
    target = call.text("target_disk_id")
    if target is not None and target not in call.node.disk_ids:
        raise Refusal(ngams("NGAMS_ER_UNKNOWN_DISK", target))
    # Where nothing can be done at all it is said at once, also to those who do not wait.
    for copy in selected:
        with _reserve(call.node, copy, target):
            await asyncio.sleep(0)  # a disk may hold very many files, and others want answers too
    if call.integer("async"):
        call.node.spawn(_clone_in_background(call.node, selected, target))
        return call.success("Accepted CLONE command for execution", progress=(0, len(selected)))
    for copy in selected:
        await _clone(call.node, copy, target)
    return call.success("Successfully handled command CLONE", progress=(100, len(selected)))


async def _clone_in_background(node: Node, selected: list[StoredFile], target: str | None) -> None:
    for copy in selected:
        try:
            await _clone(node, copy, target)
        except Refusal as refusal:
            logger.error("Cannot clone %s version %d: %s", copy.file_id, copy.file_version, refusal.message)


async def _clone(node: Node, copy: StoredFile, target: str | None) -> None:
    source, reader = await open_file(node, copy.file_id, copy.file_version)
    try:
        with _reserve(node, copy, target) as room:
            await _copy(node, source, reader, room)
    except (OSError, sqlite3.Error) as error:
        if is_full(error):
            raise _rejected(copy) from error
        logger.exception("Cannot clone %r", copy.file_id)
        raise Refusal(ngams("NGAMS_ER_REQ_HANDLING", error)) from error
    finally:
        reader.close()


async def _copy(node: Node, source: StoredFile, reader: Reader, room: Reservation) -> None:
    checksum = checksum_named(source.checksum_plugin)
    staged = await node.run(room.volume.stage, checksum)
    try:
        await node.run(_fill, staged, reader)
        if staged.size != source.file_size or (checksum and str(staged.sum) != source.checksum):
            what = f"{source.file_id} on disk {source.disk_id} is damaged: its size or checksum is wrong"
            raise Refusal(ngams("NGAMS_ER_CMD_EXEC", "CLONE", what))
        placed = await node.run(room.volume.place, staged, source.file_id)
    except BaseException:
        await node.run(staged.discard)
        raise
    added = await asyncio.shield(asyncio.wrap_future(node.catalogue.add_copy(source, room.volume.disk_id, placed)))
    if added is None:
        await node.run(room.volume.remove, placed)
        what = f"{source.file_id} was replaced, discarded or cloned by somebody else meanwhile"
        raise Refusal(ngams("NGAMS_ER_CMD_EXEC", "CLONE", what))


def _fill(staged: StagedFile, reader: Reader) -> None:
    while block := reader.read():
        staged.write([block])


def _selected(call: Call) -> list[StoredFile]:
    file_id, disk_id, version = call.text("file_id"), call.text("disk_id"), call.version()
    if file_id is None and disk_id is None:
        named = f"File Id: , Disk ID: , File Version: {version or -1}"
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "CLONE", named))
    catalogue = call.node.catalogue
    if file_id is None:
        copies = catalogue.select("WHERE disk_id = ?", disk_id or "")
        return [copy for copy in copies if version in (None, copy.file_version)]
    copies = catalogue.select("WHERE file_id = ? ORDER BY file_version DESC", file_id)
    matching = [copy for copy in copies if disk_id in (None, copy.disk_id) and version in (None, copy.file_version)]
    return matching[:1]


def _reserve(node: Node, copy: StoredFile, target: str | None) -> Reservation:
    """Room on a disk that has no copy yet."""
    holding = {other.disk_id for other in node.catalogue.copies(copy.file_id, copy.file_version)}
    excluded = holding if target is None else holding | (set(node.disk_ids) - {target})
    try:
        return node.reserve(copy.file_size, without=frozenset(excluded))
    except NoRoom:
        raise _rejected(copy) from None


def _rejected(copy: StoredFile) -> Refusal:
    megabytes = f"{copy.format}: {copy.file_size / 2**20:.3f} MB"
    return Refusal(
        ngams(
            "NGAMS_ER_CLONE_REJECTED",
            "Insufficient space to carry out the CLONE Command. "
            f"Approximate amount of disk space missing (mime-type: MB): {megabytes}",
        )
    )
