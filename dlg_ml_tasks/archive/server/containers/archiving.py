"""CARCHIVE: a container with its files, received as one multipart message and stored all or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import zlib
from dataclasses import dataclass, field

from ..archiving import LONGEST_NAME, content_length, no_volume
from ..call import Call
from ..catalogue import add, latest_version
from ..checksums import Checksum
from ..mime import type_or_octets
from ..node import Node
from ..records import NewFile
from ..refusals import Refusal
from ..replies import Reply
from ..space import NoRoom, Reservation
from ..storing import LARGEST_BODY, faults_explained
from ..vault import BLOCK, StagedFile
from . import rows
from .documents import container_element, container_name
from .multipart import ContainerBegins, ContainerEnds, FileBegins, FileEnds, read_multipart
from .rows import Container, ContainerNames

# Small files wait in memory for the commit of all, as far as this goes.
_MOST_HELD = 16 * 2**20
# The others wait as objects that no row names yet. After a crash the next start removes those, but a thousand of them
# look to it like a lost catalogue.
_MOST_OBJECTS = 500
# The name that the real server gives the sums of CARCHIVE.
_CHECKSUM = Checksum("StreamCrc32", zlib.crc32)


async def carchive(call: Call) -> Reply:
    """CARCHIVE. A file's id is its name without directories; one that is in another container moves to this one."""
    call.node.require_online("Archive Request")
    if call.request.method != "POST":
        raise Refusal("Only POST allowed for CARCHIVE")
    size, uri = content_length(call), call.text("filename") or ""
    try:
        with faults_explained(uri or "a container"), call.node.reserve(size) as room:
            arrival = _Arrival(call.node, room)
            container = await _stored(call, arrival)
    except NoRoom:
        raise no_volume() from None
    disk = next(disk for disk in call.node.disks() if disk.stored.disk_id == room.volume.disk_id)
    # "Pull" is what the real server says here.
    message = f"Successfully handled Archive Pull Request for data file with URI: {uri}"
    return call.success(message, disk, details=[container_element(container)])


async def _stored(call: Call, arrival: _Arrival) -> Container:
    try:
        root = await arrival.receive(call)
    except BaseException:
        await arrival.discard()
        raise
    registration = call.node.catalogue.change(
        lambda connection: rows.tree(connection, _register(connection, root, None))
    )
    try:
        # Shielded: once submitted the commit happens whatever becomes of this request, and needs the bytes.
        container = await asyncio.shield(asyncio.wrap_future(registration))
    except (Refusal, sqlite3.Error):
        await arrival.discard()
        raise
    call.node.new_files.ring()
    return container


@dataclass
class _Arriving:
    """A container with what has been received of it."""

    name: str
    files: list[NewFile] = field(default_factory=list)
    children: list[_Arriving] = field(default_factory=list)


class _Arrival:
    """The files of one message, safe on disk or in memory, and known to nobody yet."""

    def __init__(self, node: Node, room: Reservation) -> None:
        self._node = node
        self._room = room
        self._file_ids: set[str] = set()
        self._held = 0
        self._objects: list[str] = []
        self._open: _File | None = None

    async def receive(self, call: Call) -> _Arriving:
        """The containers of a message with their files. Refuses one that is not whole."""
        top = _Arriving("")
        path = [top]
        async for event in read_multipart(call.body.pieces()):
            if isinstance(event, bytes) and self._open is not None:
                await self._write(self._open, event)
            elif isinstance(event, ContainerBegins):
                path.append(_Arriving(container_name(event.name)))
                path[-2].children.append(path[-1])
            elif isinstance(event, FileBegins):
                self._open = self._begun(event)
            elif isinstance(event, FileEnds) and self._open is not None:
                path[-1].files.append(await self._end(self._open))
                self._open = None
            elif isinstance(event, ContainerEnds):
                path.pop()
        await call.body.drain()
        return top.children[0]

    async def discard(self) -> None:
        """Remove all bytes."""
        if self._open is not None and self._open.staged is not None:
            await self._node.run(self._open.staged.discard)
        for name in self._objects:
            await self._node.run(self._room.volume.remove, name)

    def _begun(self, event: FileBegins) -> _File:
        name = event.name.rpartition("/")[2]
        if not name or len(name.encode()) > LONGEST_NAME:
            raise Refusal(f"filename={event.name!r} must have between 1 and {LONGEST_NAME} bytes")
        if name in self._file_ids:
            # The real server makes the second a new version of the first, and takes that out of its container.
            raise Refusal(f"Two files of the message are named {name!r}; a file id is the name without directories")
        self._file_ids.add(name)
        return _File(name, type_or_octets(event.mime_type, name))

    async def _write(self, file: _File, block: bytes) -> None:
        file.take(block)
        if file.staged is None:
            if file.size <= LARGEST_BODY and self._held + len(block) <= _MOST_HELD:
                self._held += len(block)
                return
            if len(self._objects) >= _MOST_OBJECTS:
                raise Refusal(
                    f"More than {_MOST_OBJECTS} large files in one message; send the container in parts, with QARCHIVE "
                    "and CAPPEND"
                )
            file.staged = await self._node.run(self._room.volume.stage, _CHECKSUM)
            self._held -= file.size - len(block)
        if file.held_size >= BLOCK:  # worth a trip to a thread
            await self._flush(file, file.staged)

    async def _flush(self, file: _File, staged: StagedFile) -> None:
        size, block = file.held_size, file.give()
        await self._node.run(staged.write, [block])
        self._room.written(size)

    async def _end(self, file: _File) -> NewFile:
        if file.staged is None:
            body = file.give()
            # Where all bodies are counted.
            return file.new(self._node.volumes[0].disk_id, _CHECKSUM.update(body, 0), body=body)
        await self._flush(file, file.staged)
        name = await self._node.run(self._room.volume.place, file.staged, file.name)
        self._objects.append(name)
        return file.new(self._room.volume.disk_id, file.staged.sum, object=name)


class _File:
    """The file being received. Its bytes are in memory, or `staged` but for the last `held_size` of them."""

    def __init__(self, name: str, mime_type: str) -> None:
        self.name = name
        self.size = 0
        self.held_size = 0
        self.staged: StagedFile | None = None
        self._held: list[bytes] = []
        self._mime_type = mime_type
        self._started = time.monotonic()

    def take(self, block: bytes) -> None:
        """Hold some more bytes."""
        self._held.append(block)
        self.held_size += len(block)
        self.size += len(block)

    def give(self) -> bytes:
        """The bytes that are held, which are not held any longer."""
        block = b"".join(self._held)
        self._held, self.held_size = [], 0
        return block

    def new(self, disk_id: str, total: int, *, object: str | None = None, body: bytes | None = None) -> NewFile:
        """What the catalogue is told of it."""
        return NewFile(
            file_id=self.name,
            base_name=self.name,
            format=self._mime_type,
            file_size=self.size,
            checksum=str(total),
            checksum_plugin=_CHECKSUM.name,
            io_time=time.monotonic() - self._started,
            disk_id=disk_id,
            object=object,
            body=body,
        )


def _register(connection: sqlite3.Connection, arriving: _Arriving, parent_id: str | None) -> str:
    """Make a container with all below it, as part of a change; gives its id."""
    container_id = rows.create(connection, ContainerNames(arriving.name), parent_id).container_id
    for new in arriving.files:
        version, _ = latest_version(connection, new.file_id)
        add(connection, new, version + 1, container_id)
    rows.append(connection, container_id, [new.file_id for new in arriving.files], force=True)
    for child in arriving.children:
        _register(connection, child, container_id)
    rows.close(connection, container_id)
    return container_id
