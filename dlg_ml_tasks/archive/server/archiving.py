"""ARCHIVE and QARCHIVE: receiving a file.

The order of events makes a crash harmless: bytes to staging, flush, rename, flush the directory, commit the row, answer.
Until the commit nothing can see the file; after it nothing can lose it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote

from starlette.responses import Response

from .call import Call, require_plain
from .catalogue import NewFile, Overwrite, StoredFile
from .checksums import Checksum, checksum_for
from .mime import mime_type_of, stored_name
from .node import Node, is_full
from .refusals import Refusal, ngams
from .vault import BLOCK, StagedFile

logger = logging.getLogger(__name__)

# NGAS keeps the name in a varchar(255) and puts a prefix before it while staging.
_LONGEST_NAME = 240


@dataclass(frozen=True)
class _Push:
    """What a client wants stored, checked. `size` is in bytes."""

    uri: str
    file_id: str
    base_name: str
    mime_type: str
    size: int
    checksum: Checksum | None
    announced_sum: int | None
    overwrite: Overwrite | None


async def archive(call: Call) -> Response:
    """ARCHIVE."""
    return await _archive(call, quick=False)


async def qarchive(call: Call) -> Response:
    """QARCHIVE: the same with other words; the real server skips replication here."""
    return await _archive(call, quick=True)


async def _archive(call: Call, *, quick: bool) -> Response:
    call.node.require_online("Archive Request")
    if not call.is_push:
        # A pull would fetch any URL, and any file of this machine, for whoever asks.
        raise Refusal(ngams("NGAMS_ER_ILL_REQ", "Archive Pull") + " Send the bytes with POST instead.")
    push = _parse(call, quick=quick)
    if not quick and call.integer("probe"):
        await call.body.drain()
        return call.success(ngams("NGAMS_INFO_ARCH_REQ_OK", push.mime_type, call.node.host_id))
    if not await call.node.run(call.node.has_room_for, push.size):
        raise _no_room(push, quick=quick)
    try:
        stored = await _store(call, push)
    except (OSError, sqlite3.Error) as error:
        if is_full(error):
            raise _no_room(push, quick=quick) from error
        logger.exception("Cannot store %r", push.file_id)
        raise Refusal(ngams("NGAMS_ER_REQ_HANDLING", error)) from error
    disk = await call.node.run(call.disk)
    message = f"Successfully handled Archive Push Request for data file with URI: {push.uri}"
    return call.success(message, disk, stored)


async def _store(call: Call, push: _Push) -> StoredFile:
    node = call.node
    started = time.monotonic()
    staged = await node.run(node.vault.stage, push.checksum)
    try:
        async for block in _blocks(call):
            await node.run(staged.write, block)
        _verify(push, staged)
        placed = await node.run(node.vault.place, staged, push.file_id)
    except BaseException:
        await node.run(staged.discard)
        raise
    new = NewFile(
        file_id=push.file_id,
        base_name=push.base_name,
        format=push.mime_type,
        file_size=staged.size,
        checksum=str(staged.sum) if push.checksum else None,
        checksum_plugin=push.checksum.name if push.checksum else None,
        io_time=time.monotonic() - started,
        object=placed,
    )
    return await _register(node, new, push.overwrite)


async def _register(node: Node, new: NewFile, overwrite: Overwrite | None) -> StoredFile:
    registration = asyncio.wrap_future(node.catalogue.register(new, overwrite))
    try:
        # Shielded: once submitted the commit happens whatever becomes of this request, and needs its bytes.
        stored, replaced = await asyncio.shield(registration)
    except (Refusal, sqlite3.Error):
        await node.run(node.vault.remove, new.object)
        raise
    if replaced is not None:
        await node.run(node.vault.remove, replaced)
    return stored


async def _blocks(call: Call) -> AsyncIterator[bytes]:
    """The body in blocks worth a trip to a thread."""
    pieces: list[bytes] = []
    held = 0
    async for piece in call.body.pieces():
        pieces.append(piece)
        held += len(piece)
        if held >= BLOCK:
            yield b"".join(pieces)
            pieces, held = [], 0
    if held:
        yield b"".join(pieces)


def _verify(push: _Push, staged: StagedFile) -> None:
    if staged.size != push.size:
        lacking = push.size - staged.size
        raise Refusal(f"Only read {staged.size} out of {push.size} bytes ({lacking} bytes missing)")
    if push.announced_sum is not None and push.checksum is not None and push.announced_sum != staged.sum:
        raise Refusal(
            f"Checksum error for file {push.uri}, local crc = {staged.sum}, but remote crc = {push.announced_sum}"
        )


def _parse(call: Call, *, quick: bool) -> _Push:
    size = _content_length(call)
    headers = call.request.headers
    call.parameters = _disposition_parameters(headers.get("content-disposition")) | call.parameters
    # NGAS unquotes the file name once more than the query's own encoding; the file id it takes as it is.
    uri = require_plain("filename", unquote(call.text("filename") or "").strip().rstrip("/"))
    base_name = uri.rpartition("/")[2]
    if not base_name:
        raise Refusal(ngams("NGAMS_ER_MISSING_URI"))
    mime_type = mime_type_of(call.text("mime_type") or headers.get("content-type"), base_name, quick=quick)
    base_name_on_disk = stored_name(base_name, mime_type)
    if len(base_name_on_disk.encode()) > _LONGEST_NAME:
        raise Refusal(f"filename={base_name!r} is longer than {_LONGEST_NAME} bytes; choose a shorter one")
    checksum = checksum_for(call.text("crc_variant"), "crc32" if quick else "ngamsGenCrc32")
    return _Push(
        uri=uri,
        file_id=require_plain("file_id", call.text("file_id") or base_name),
        base_name=base_name_on_disk,
        mime_type=mime_type,
        size=size,
        checksum=checksum,
        announced_sum=checksum.expected(headers.get("ngas-file-crc")) if checksum else None,
        overwrite=Overwrite(call.version()) if _overwrites(call) else None,
    )


def _content_length(call: Call) -> int:
    headers = call.request.headers
    # The real server stores the framing of a chunked body as data if a length stands beside it.
    length = 0 if "transfer-encoding" in headers else int(headers.get("content-length", "0"))
    if length <= 0:
        raise Refusal("Content-Length is 0 or unknown", 411)
    return length


def _disposition_parameters(header: str | None) -> dict[str, str]:
    """`attachment; filename="x"; file_id=y`: another way to pass parameters."""
    if header is None:
        return {}
    message = Message()
    message["Content-Disposition"] = header
    pairs = message.get_params(header="content-disposition") or []
    return {name: unquote(value) for name, value in pairs[1:] if value}


def _overwrites(call: Call) -> bool:
    versioning, no_versioning = call.integer("versioning"), call.integer("no_versioning")
    return versioning == 0 if versioning is not None else bool(no_versioning)


def _no_room(push: _Push, *, quick: bool) -> Refusal:
    # The real server drops the connection when its disk is full; these are its words for having no volume to use.
    if quick:
        return Refusal("No disk volumes are available for ingesting any files.")
    return Refusal(ngams("NGAMS_AL_NO_STO_SETS", push.mime_type))
