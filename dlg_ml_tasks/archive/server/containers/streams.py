"""A container as one stream of known length, as nested MIME multipart or as tar: made while it is sent."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import datetime, timezone

from ..header_fields import header_parameter
from ..records import StoredFile
from .multipart import new_boundary
from .rows import Container

Contents = Callable[[StoredFile], AsyncGenerator[bytes, None]]
"""Gives the bytes of a file, exactly `file_size` of them."""

# Of small files many go into one piece: each costs the server a turn and the network a packet.
_PIECE = 256 * 1024
_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)

Part = bytes | StoredFile
"""What a stream is made of: bytes of its own, or the place of a file's bytes."""


def length(parts: Iterator[Part]) -> int:
    """The bytes of a stream."""
    return sum(len(part) if isinstance(part, bytes) else part.file_size for part in parts)


async def stream(parts: Iterator[Part], contents: Contents) -> AsyncGenerator[bytes, None]:
    """The bytes of a stream, in pieces worth sending; to be closed.

    Raises what `contents` raises, and OSError if a file is not as long as it should be.
    """
    held: list[bytes] = []
    held_size = 0
    async with aclosing(_pieces(parts, contents)) as pieces:
        async for piece in pieces:
            held.append(piece)
            held_size += len(piece)
            if held_size >= _PIECE:
                yield b"".join(held)
                held, held_size = [], 0
    yield b"".join(held)


async def _pieces(parts: Iterator[Part], contents: Contents) -> AsyncGenerator[bytes, None]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        sent = 0
        async with aclosing(contents(part)) as blocks:
            async for block in blocks:
                sent += len(block)
                yield block
        if sent != part.file_size:
            raise OSError(f"{part.file_id} has {sent} bytes instead of {part.file_size}")


def multipart(container: Container) -> Iterator[Part]:
    """The container as `multipart/mixed`, its files first, with those below it as parts of the same kind."""
    boundary = new_boundary()
    yield b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; %b; boundary="%b"\r\n\r\n' % (
        header_parameter("container_name", container.name).encode(),
        boundary,
    )
    for name, entry in _named_entries(container):
        yield b"\r\n--%b\r\n" % boundary
        if isinstance(entry, Container):
            yield from multipart(entry)
        else:
            head = f"Content-Type: {entry.format}\r\nContent-Disposition: attachment; {header_parameter('filename', name)}\r\n\r\n"
            yield head.encode()
            yield entry
    yield b"\r\n--%b--" % boundary


def tar(container: Container) -> Iterator[Part]:
    """The container as a tar archive: one directory, named like it, with all below it."""
    yield from _tar(container, safe_name(container.name))
    yield _TAR_END


def _tar(container: Container, path: str) -> Iterator[Part]:
    yield _tar_head(path, None)
    for name, entry in _named_entries(container):
        if isinstance(entry, Container):
            yield from _tar(entry, f"{path}/{name}")
        else:
            yield _tar_head(f"{path}/{name}", entry)
            yield entry
            yield bytes(-entry.file_size % _TAR_BLOCK)


def _tar_head(path: str, file: StoredFile | None) -> bytes:
    entry = tarfile.TarInfo(path)
    if file is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    else:
        entry.size, entry.mode = file.file_size, 0o644
        ingested = datetime.fromisoformat(file.ingestion_date).replace(tzinfo=timezone.utc)
        entry.mtime = int(ingested.timestamp())
    # pax holds names of any length in UTF-8, and files of any size.
    return entry.tobuf(tarfile.PAX_FORMAT)


def _named_entries(container: Container) -> Iterator[tuple[str, StoredFile | Container]]:
    """What stands in a container, each under a name of its own: two files may have the same one on disk."""
    taken: set[str] = set()
    for file in container.files:
        yield _free_name(file.file_name.rpartition("/")[2], taken), file
    for child in container.children:
        yield _free_name(child.name, taken), child


def _free_name(name: str, taken: set[str]) -> str:
    wanted = free = safe_name(name)
    number = 1
    while free in taken:
        number += 1
        free = f"{number}-{wanted}"
    taken.add(free)
    return free


def safe_name(name: str) -> str:
    """`name` as one step of a path that leads nowhere else when somebody unpacks it."""
    step = name.replace("/", "_").replace("\\", "_")
    return "_" * max(1, len(step)) if not step.strip(".") else step
