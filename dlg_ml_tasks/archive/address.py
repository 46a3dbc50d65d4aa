"""Reads `ngas://host:port/path` URLs; the one place where a host name from outside is checked."""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEME = "ngas://"
DEFAULT_PORT = 7777

_AUTHORITY = re.compile(
    r"(?P<host>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)


class Address(NamedTuple):
    """Where an NGAS server listens. `host` is a name, an IPv4 address or an IPv6 address in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_address(authority: str) -> Address:
    """Reads `host` or `host:port` (default 7777).

    Raises ValueError for anything else. Credentials are refused without being repeated, because URLs end up in logs,
    databases and web pages.
    """
    if "@" in authority:
        raise ValueError(
            "an NGAS address must not hold a user or password; "
            "set the environment variables DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD, or write them into ~/.netrc"
        )
    match = _AUTHORITY.fullmatch(authority)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{authority!r} is not an NGAS address; write host or host:port")
    return Address(match["host"].lower(), port)


def split_url(url: str) -> tuple[Address, str]:
    """The address and the path of an `ngas://` URL. The path is literal: `#`, `?` and `%` are characters of names."""
    if not url.startswith(SCHEME):
        raise ValueError(f"{url!r} does not begin with {SCHEME}")
    authority, slash, path = url.removeprefix(SCHEME).partition("/")
    return parse_address(authority), slash + path
