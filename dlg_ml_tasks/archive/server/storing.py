"""Storing a file, wherever its bytes come from.

The order of events makes a crash harmless: bytes to staging, flush, rename, flush the directory, commit the row, answer.
Until the commit nothing can see the file; after it nothing can lose it. A small file takes a shorter way: its bytes are
committed with its row.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from .checksums import Checksum
from .node import Node
from .records import NewFile, Overwrite, Registered
from .refusals import Refusal, ngams
from .space import NoRoom, Reservation, is_full
from .vault import BLOCK

logger = logging.getLogger(__name__)

# Files up to this size are kept in the catalogue. Above it, a flush of its own costs less than writing the bytes twice
# (to the database's log and from there to the database).
LARGEST_BODY = 64 * 1024
# A call of the system takes 1024 pieces at most.
_MOST_PIECES = 512


@dataclass(frozen=True)
class Incoming:
    """A file to be stored, checked. `size` is in bytes; `announced_sum` is what its sender says the checksum is."""

    uri: str
    file_id: str
    base_name: str
    mime_type: str
    size: int
    checksum: Checksum | None
    announced_sum: int | None = None
    overwrite: Overwrite | None = None


async def store(node: Node, incoming: Incoming, pieces: AsyncIterator[bytes]) -> Registered:
    """Store the bytes that `pieces` gives under a new version, durably.

    Raises a Refusal, and keeps nothing, if they are not what was announced or cannot be kept; NoRoom if there is no
    room for them.
    """
    with faults_explained(incoming.file_id):
        async with received(node, incoming, pieces) as new:
            return await _register(node, new, incoming.overwrite)


@asynccontextmanager
async def received(node: Node, incoming: Incoming, pieces: AsyncIterator[bytes]) -> AsyncIterator[NewFile]:
    """Receive the bytes that `pieces` gives and have them ready to be registered, which must happen within the context:
    an error in it means that it has not, and they are removed. Raises as `store` does, and OSError."""
    if incoming.size <= LARGEST_BODY:
        with node.reserve_in_catalogue(incoming.size) as room:
            yield await _body(incoming, pieces, room)
        return
    with node.reserve(incoming.size) as room:
        new = await _object(node, incoming, pieces, room)
        try:
            yield new
        except (Refusal, sqlite3.Error):
            await node.run(room.volume.remove, new.object or "")
            raise


async def _body(incoming: Incoming, pieces: AsyncIterator[bytes], room: Reservation) -> NewFile:
    started = time.monotonic()
    held = [piece async for piece in pieces]
    body = held[0] if len(held) == 1 else b"".join(held)
    total = incoming.checksum.update(body, 0) if incoming.checksum else 0
    _verify(incoming, len(body), total)
    return _new_file(incoming, total, time.monotonic() - started, room.volume.disk_id, body=body)


async def _object(node: Node, incoming: Incoming, pieces: AsyncIterator[bytes], room: Reservation) -> NewFile:
    started = time.monotonic()
    staged = await node.run(room.volume.stage, incoming.checksum)
    try:
        async for block in _blocks(pieces):
            await node.run(staged.write, block)
            room.written(sum(map(len, block)))
        _verify(incoming, staged.size, staged.sum)
        placed = await node.run(room.volume.place, staged, incoming.file_id)
    except BaseException:
        await node.run(staged.discard)
        raise
    return _new_file(incoming, staged.sum, time.monotonic() - started, room.volume.disk_id, object=placed)


@contextmanager
def faults_explained(name: str) -> Iterator[None]:
    """Turn what the system and the database raise while `name` is stored into NoRoom or a Refusal."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if is_full(error):
            raise NoRoom from error
        logger.exception("Cannot store %r", name)
        raise Refusal(ngams("NGAMS_ER_REQ_HANDLING", error)) from error


async def _register(node: Node, new: NewFile, overwrite: Overwrite | None) -> Registered:
    # Shielded: once submitted the commit happens whatever becomes of this request, and needs its bytes.
    registered = await asyncio.shield(asyncio.wrap_future(node.catalogue.register(new, overwrite)))
    node.new_files.ring()
    if any(copy.object is not None for copy in registered.replaced):
        await node.run(node.delete_objects, registered.replaced)
    return registered


async def _blocks(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The pieces in lists worth a trip to a thread."""
    block: list[bytes] = []
    held = 0
    async for piece in pieces:
        block.append(piece)
        held += len(piece)
        if held >= BLOCK or len(block) == _MOST_PIECES:
            yield block
            block, held = [], 0
    if held:
        yield block


def _verify(incoming: Incoming, size: int, total: int) -> None:
    if size != incoming.size:
        raise Refusal(f"Only read {size} out of {incoming.size} bytes ({incoming.size - size} bytes missing)")
    if incoming.announced_sum is not None and incoming.checksum is not None and incoming.announced_sum != total:
        raise Refusal(
            f"Checksum error for file {incoming.uri}, local crc = {total}, but remote crc = {incoming.announced_sum}"
        )


def _new_file(
    incoming: Incoming,
    total: int,
    duration: float,
    disk_id: str,
    *,
    object: str | None = None,
    body: bytes | None = None,
) -> NewFile:
    return NewFile(
        file_id=incoming.file_id,
        base_name=incoming.base_name,
        format=incoming.mime_type,
        file_size=incoming.size,
        checksum=str(total) if incoming.checksum else None,
        checksum_plugin=incoming.checksum.name if incoming.checksum else None,
        io_time=duration,
        disk_id=disk_id,
        object=object,
        body=body,
    )
