"""The nested MIME multipart messages in which NGAS moves a container: read piece by piece, never held as a whole."""

from __future__ import annotations

import email.parser
import email.utils
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..call import require_plain
from ..refusals import Refusal

_LONGEST_HEAD = 64 * 1024
_DEEPEST = 32
# RFC 2046: at most 70 characters, of these.
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")


@dataclass(frozen=True)
class ContainerBegins:
    """A container opens inside the one that is open."""

    name: str


@dataclass(frozen=True)
class FileBegins:
    """A file of the open container; its bytes follow. `mime_type` as declared, None if not."""

    name: str
    mime_type: str | None


@dataclass(frozen=True)
class FileEnds:
    """The last byte of a file has been given."""


@dataclass(frozen=True)
class ContainerEnds:
    """The open container is complete."""


Event = ContainerBegins | FileBegins | bytes | FileEnds | ContainerEnds


async def read_multipart(pieces: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """What a message holds, in its order; `bytes` are the next bytes of the open file.

    The message has its own head: `Content-Type: multipart/mixed; container_name="…"; boundary="…"`. Refuses a message
    that is not whole, nested deeper than 32, or not of this form.
    """
    incoming = _Incoming(pieces)
    head = await _head(incoming)
    if head.boundary is None:
        raise Refusal("The body must be a MIME message of type multipart/mixed with a container_name and a boundary")
    async for event in _container(incoming, head, 1):
        yield event


def new_boundary() -> bytes:
    """A line that no file can be expected to hold."""
    return uuid.uuid4().hex.encode()


@dataclass(frozen=True)
class _Head:
    """The head of a part: of a container if it has a boundary, else of a file."""

    name: str
    mime_type: str | None
    boundary: bytes | None


class _Incoming:
    """The bytes that have arrived and are not yet understood."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    async def up_to(self, mark: bytes) -> bytes:
        """Everything before `mark`, which is taken too; at most 64 KiB."""
        while (end := self._held.find(mark)) < 0:
            if len(self._held) > _LONGEST_HEAD:
                raise Refusal(f"The head of a part is longer than {_LONGEST_HEAD} bytes")
            await self._more()
        found = self._held[:end]
        self._held = self._held[end + len(mark) :]
        return found

    async def before(self, mark: bytes) -> AsyncIterator[bytes]:
        """The bytes before `mark` as they come; it is taken too."""
        while (end := self._held.find(mark)) < 0:
            # The mark may have begun at the end of what is held.
            certain = len(self._held) - len(mark) + 1
            if certain > 0:
                yield self._held[:certain]
                self._held = self._held[certain:]
            await self._more()
        if end:
            yield self._held[:end]
        self._held = self._held[end + len(mark) :]

    async def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._held) < count:
            await self._more()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def put_back(self, data: bytes) -> None:
        """Give back what was taken."""
        self._held = data + self._held

    async def _more(self) -> None:
        async for piece in self._pieces:
            if piece:
                self._held += piece
                return
        raise Refusal("The multipart message breaks off before its final boundary; nothing was stored")


async def _container(incoming: _Incoming, head: _Head, depth: int) -> AsyncIterator[Event]:
    if depth > _DEEPEST:
        raise Refusal(f"Containers are nested deeper than {_DEEPEST}")
    delimiter = b"\r\n--" + (head.boundary or b"")
    yield ContainerBegins(head.name)
    # The empty line that ends the head may be the line break before the first delimiter.
    incoming.put_back(b"\r\n")
    async for _ in incoming.before(delimiter):
        pass
    while not await _is_last(incoming):
        part = await _head(incoming)
        if part.boundary is not None:
            async for event in _container(incoming, part, depth + 1):
                yield event
            async for _ in incoming.before(delimiter):
                pass
            continue
        yield FileBegins(part.name, part.mime_type)
        incoming.put_back(b"\r\n")
        async for event in _file(incoming, delimiter):
            yield event
        yield FileEnds()
    yield ContainerEnds()


async def _file(incoming: _Incoming, delimiter: bytes) -> AsyncIterator[bytes]:
    # An empty file's delimiter shares its line break with the head, so the break was put back: it is no data.
    to_skip = 2
    async for data in incoming.before(delimiter):
        skipped = min(to_skip, len(data))
        to_skip -= skipped
        if len(data) > skipped:
            yield data[skipped:]


async def _is_last(incoming: _Incoming) -> bool:
    """Whether the delimiter just taken ends the container."""
    ending = await incoming.take(2)
    if ending == b"--":
        return True
    incoming.put_back(ending)
    if (await incoming.up_to(b"\r\n")).strip(b" \t"):
        raise Refusal("A boundary of the multipart message is followed by other text on its line")
    return False


async def _head(incoming: _Incoming) -> _Head:
    block = await incoming.up_to(b"\r\n\r\n")
    message = email.parser.BytesHeaderParser().parsebytes(block)
    if message.get_content_type() == "multipart/mixed":
        name, boundary = _plain(message.get_param("container_name")), _plain(message.get_param("boundary"))
        if not name or not boundary:
            raise Refusal("Either 'boundary' or 'container_name' are not specified in the Content-Type header")
        if not _BOUNDARY.fullmatch(boundary):
            raise Refusal(f"boundary={boundary!r} is no MIME boundary: at most 70 letters, digits or '()+_,-./:=?")
        return _Head(require_plain("container_name", name), None, boundary.encode())
    filename = message.get_filename()
    if not filename:
        raise Refusal("No filename found in internal multipart part header")
    declared = message.get_content_type() if "content-type" in message else None
    return _Head(require_plain("filename", filename), declared, None)


def _plain(parameter: object) -> str:
    # A parameter written as name*=UTF-8''text comes as (charset, language, text).
    return email.utils.collapse_rfc2231_value(parameter) if isinstance(parameter, (str, tuple)) else ""
