"""One request as the commands see it: its parameters, its body, and the answers they can give."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element

from .node import Node
from .records import StoredFile, timestamp
from .refusals import Refusal
from .replies import XML, Reply
from .status_document import Disk, Outcome, status_document

_MOVING_FILES = frozenset({"ARCHIVE", "QARCHIVE", "CARCHIVE", "RETRIEVE", "CRETRIEVE", "CLONE"})
_SAFE_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


@dataclass(frozen=True)
class Request:
    """The head of an HTTP request. `path` is unquoted, `query` is not; the names of `headers` match in any case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def command(self) -> str:
        """The name of the command it asks for."""
        return self.path.strip("/")

    @property
    def moves_files(self) -> bool:
        """Whether the server counts as BUSY while it serves this."""
        return self.command in _MOVING_FILES


class Body(Protocol):
    """The bytes a client sends along, read once and never held as a whole."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The pieces as they arrive. Raises ClientGone, and a Refusal if none arrives for the stall time."""

    async def drain(self, most: int | None = None) -> bool:
        """Read and forget the rest, so that a client busy sending gets to read why it is refused; gives whether all
        was read, of `most` bytes if that is given.

        Closing early, as the real server does, resets the connection and with it the answer. A client that waits for
        "100 Continue" has sent nothing and is not asked to.
        """


class Call:
    """A request to one node."""

    def __init__(self, node: Node, request: Request, body: Body) -> None:
        """Raises a Refusal if the query is not UTF-8."""
        self.node = node
        self.request = request
        self.body = body
        self.request_time = timestamp()
        self.parameters = _parameters(request)

    @property
    def is_push(self) -> bool:
        """Whether the client sends something, as opposed to asking."""
        return self.request.method in ("POST", "PUT")

    def text(self, name: str) -> str | None:
        """A parameter, None if absent or blank."""
        return self.parameters.get(name)

    def integer(self, name: str) -> int | None:
        """A numeric parameter, None if absent. Refuses anything but an integer that fits the database."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            raise Refusal(f"invalid literal for int() with base 10: {value!r} (parameter {name})") from None
        if abs(number) >= 2**63:
            raise Refusal(f"{name}={value} is out of range")
        return number

    def version(self) -> int | None:
        """The `file_version` parameter; None, which means the latest, also for 0 and -1."""
        version = self.integer("file_version")
        return version if version and version > 0 else None

    def success(
        self,
        message: str,
        disk: Disk | None = None,
        file: StoredFile | None = None,
        *,
        details: Iterable[Element] = (),
        http_status: int = 200,
        progress: tuple[int, int] | None = None,
    ) -> Reply:
        """A SUCCESS document; with the request's id and times when it is about a disk or a file. `details` come last;
        `progress` is the per cent done of so many files."""
        outcome = Outcome(
            message,
            True,
            self.node.host_id,
            self.node.online,
            _others_busy(self.node, self.request),
            str(uuid.uuid4()) if disk else None,
            self.request_time if disk else None,
            progress,
        )
        return Reply(status_document(outcome, dtd_host(self.request), disk, file, details), XML, http_status)


def failure(node: Node, request: Request, refusal: Refusal) -> Reply:
    """A FAILURE document."""
    outcome = Outcome(refusal.message, False, node.host_id, node.online, _others_busy(node, request))
    return Reply(status_document(outcome, dtd_host(request)), XML, refusal.http_status, refusal.close)


def _others_busy(node: Node, request: Request) -> bool:
    """Whether the server is BUSY apart from this request, which is done when its reply is read."""
    return node.busy > int(request.moves_files)


def dtd_host(request: Request) -> str:
    """The address the client used for this server, unless it would break out of the document it is quoted in."""
    host = request.headers.get("host", "")
    return host if _SAFE_HOST.fullmatch(host) else "localhost"


def require_plain(name: str, value: str) -> str:
    """`value`, refused if it has control characters or others that neither XML nor a header can carry."""
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff":
            raise Refusal(f"{name}={value!r} contains the character {character!r}; choose a name without it")
    return value


def _parameters(request: Request) -> dict[str, str]:
    try:
        request.query.encode()  # bytes that are not UTF-8 come as lone surrogates
        # The last of several wins and blank ones are dropped, as in NGAS.
        return dict(parse_qsl(request.query, errors="strict", separator="&"))
    except ValueError as error:
        raise Refusal(f"The query is not percent-encoded UTF-8: {error}") from None
