"""What a command answers with: a document, an archived file, or a stream. Knows nothing of the HTTP server that sends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from .vault import ObjectReader

# Without a charset, as NGAS sends it: a client must read the encoding from the document.
XML = {"Content-Type": "text/xml"}


@dataclass(frozen=True)
class Reply:
    """A body that is in memory. `close` asks for the connection to be closed after it."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    close: bool = False


@dataclass(frozen=True)
class FileReply:
    """The bytes of an archived file from `start` to its end. Whoever sends it closes `reader`."""

    reader: ObjectReader
    start: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class StreamReply:
    """A body made while it is sent, so that it is never in memory as a whole; `length` in bytes where it is known. Whoever
    sends it closes `pieces`, also before its end."""

    pieces: AsyncGenerator[bytes, None]
    headers: Mapping[str, str]
    length: int | None = None


AnyReply = Reply | FileReply | StreamReply
