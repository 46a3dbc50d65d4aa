"""One request as the commands see it: its parameters, its body, and the answers they can give."""

from __future__ import annotations

import asyncio
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from .catalogue import StoredFile, timestamp
from .node import Node
from .refusals import ClientGone, Refusal
from .status_document import Disk, Outcome, status_document

# Without a charset, as NGAS sends it: a client must read the encoding from the document.
_XML = {"Content-Type": "text/xml"}
_SAFE_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class Body:
    """The bytes a client sends along, read once and never held as a whole."""

    def __init__(self, request: Request, stall_seconds: float) -> None:
        self._request = request
        self._stall_seconds = stall_seconds
        self._finished = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The pieces as they arrive. Raises ClientGone, and a Refusal if none arrives for the stall time."""
        while not self._finished:
            try:
                message = await asyncio.wait_for(self._request.receive(), self._stall_seconds)
            except asyncio.TimeoutError:
                raise Refusal(f"No data for {self._stall_seconds:g} seconds, giving up", close=True) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._finished = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drain(self) -> None:
        """Read and forget the rest, so that a client busy sending gets to read why it is refused.

        Closing early, as the real server does, resets the connection and with it the answer. A client that waits for
        "100 Continue" is told before it sends anything.
        """
        if not self._finished and self._request.headers.get("expect", "").lower() != "100-continue":
            async for _ in self.pieces():
                pass


class Call:
    """A request to one node."""

    def __init__(self, node: Node, request: Request) -> None:
        """Raises a Refusal if the query is not UTF-8."""
        self.node = node
        self.request = request
        self.body = Body(request, node.stall_seconds)
        self.request_id = str(uuid.uuid4())
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

    def success(self, message: str, disk: Disk | None = None, file: StoredFile | None = None) -> Response:
        """A SUCCESS document; with the request's id and times when it is about a disk or a file."""
        outcome = Outcome(
            message,
            True,
            self.node.host_id,
            self.node.online,
            self.request_id if disk else None,
            self.request_time if disk else None,
        )
        return Response(status_document(outcome, dtd_host(self.request), disk, file), headers=_XML)

    def disk(self) -> Disk:
        """The node's disk at this moment. Blocking."""
        vault = self.node.vault
        return Disk(self.node.catalogue.volume(), self.node.host_id, vault.root, vault.free_bytes())


def failure(node: Node, request: Request, refusal: Refusal) -> Response:
    """A FAILURE document."""
    outcome = Outcome(refusal.message, False, node.host_id, node.online)
    headers = _XML | {"Connection": "close"} if refusal.close else _XML
    return Response(status_document(outcome, dtd_host(request)), refusal.http_status, headers=headers)


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
    query = request.scope["query_string"].decode("latin-1")
    try:
        # The last of several wins and blank ones are dropped, as in NGAS.
        return dict(parse_qsl(query, errors="strict", separator="&"))
    except (UnicodeDecodeError, ValueError) as error:
        raise Refusal(f"The query is not percent-encoded UTF-8: {error}") from None
