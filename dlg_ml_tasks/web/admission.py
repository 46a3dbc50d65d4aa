"""Who is let in: requests of a sane size, under a name of this site, and not too many from one address."""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_LONGEST_ADDRESS = 8192  # bytes of path and query
_LONGEST_HEADERS = 16384
_CLIENTS = 10_000  # that are remembered; whoever comes after that is new
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class Refusal(NamedTuple):
    """Why a request is not let in."""

    status: int
    title: str
    detail: str
    headers: Mapping[str, str] = {}


class Hosts:
    """The names under which this site may be asked.

    Another site's name that leads to this address (DNS rebinding) would let that site's pages read what only this machine can
    reach. So it has to be `named`, an IP address, localhost, or this machine's own name. ``*`` allows any.
    """

    def __init__(self, named: Iterable[str]) -> None:
        self._named = {name.lower() for name in (*named, "localhost", socket.gethostname())}

    def allow(self, header: str) -> bool:
        """Whether a Host header is one of them."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        return "*" in self._named or name in self._named or _is_address(name) or name.endswith(".localhost")


class Rate:
    """How many requests an address may make: `per_minute` on average, and as many at once. 0: any number.

    A network of IPv6 addresses (/64) counts as one, because a single machine may use any of them.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """0 if the request may go on; otherwise the seconds after which the next one may."""
        if not self._most:
            return 0
        client, now = _network(address), self._clock()
        left, when = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - when) * self._per_second)
        admitted = left >= 1
        self._left[client] = (left - admitted, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if admitted else max(1, math.ceil((1 - left) / self._per_second))


class Admission:
    """Answers what is not let in with what `refuse` makes of it, and passes the rest on."""

    def __init__(
        self, app: ASGIApp, hosts: Hosts, rate: Rate, refuse: Callable[[Request, Refusal], Response], prefix: str
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._rate = rate
        self._refuse = refuse
        # Who watches over the site asks under any name; styles and scripts are cheap, and kept by browsers.
        self._any_host = (f"{prefix}/health",)
        self._uncounted = (f"{prefix}/health", f"{prefix}/static/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in or refuse."""
        refusal = self._look(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            # Without the name that was asked for, which a page would say back as its own address.
            nameless = {**scope, "headers": [field for field in scope["headers"] if field[0] != b"host"]}
            await self._refuse(Request(nameless), refusal)(scope, receive, send)

    def _look(self, scope: Scope) -> Refusal | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_ADDRESS:
            return Refusal(414, "This address is too long", "Addresses of this site are shorter.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _LONGEST_HEADERS:
            return Refusal(431, "Too much in the head of the request", "Clear this site's cookies in your browser.")
        path = scope["path"]
        if "\0" in path:
            return Refusal(404, "Not found", "There is no page at this address.")
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
        if host is not None and path not in self._any_host and not self._hosts.allow(host):
            return Refusal(
                421,
                "This site has another name",
                "Its operator can name it in DLG_ML_WEB_URL or DLG_ML_WEB_HOSTS.",
            )
        if path.startswith(self._uncounted):
            return None
        seconds = self._rate.wait(scope["client"][0] if scope.get("client") else "")
        if seconds:
            told = f"Ask again in {seconds} s."
            return Refusal(429, "Too many requests from your address", told, {"Retry-After": str(seconds)})
        return None


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
