"""The hosts this server may call by itself. Without such a list, whoever may send it a command could use it to reach
whatever it can reach."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from yarl import URL

from .refusals import Refusal

_OPTION = {"filename": "--pull-hosts", "url": "--subscriber-hosts"}
_ENTRY = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts by exact name or address, each with one port or, for None, with all."""

    entries: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """From `host`, `host:port` or `[IPv6]:port`. Raises ValueError for anything else, wildcards included."""
        return cls(frozenset(cls.entry(entry) for entry in entries))

    @staticmethod
    def entry(text: str) -> tuple[str, int | None]:
        """One entry of `parse`."""
        match = _ENTRY.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no host; write a name or an address, with :port if only one is meant")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"{text!r} has no port between 1 and 65535")
        return (match["ipv6"] or match["name"]).lower(), port

    def url(self, text: str, parameter: str) -> URL:
        """`text` as a URL that may be called, parsed once so that what is called is what was checked.

        Refuses other schemes than http and https, credentials, and hosts that are not on the list.
        """
        try:
            url = URL(text.strip())
            host, port = (url.host or "").lower(), url.port
        except ValueError as error:
            raise Refusal(f"{parameter}={text!r} is no URL: {error}") from None
        if url.user is not None or url.password is not None:
            raise Refusal(f"{parameter} must not hold a user name or password: URLs are logged and listed")
        if url.scheme not in ("http", "https") or not host:
            raise Refusal(f"{parameter}={text!r} must be a URL that begins with http:// or https://")
        if (host, None) not in self.entries and (host, port) not in self.entries:
            raise Refusal(
                f"{parameter}: the host {host}:{port} is not on the list of this server; "
                f"whoever runs it can add it with {_OPTION[parameter]}"
            )
        return url.with_fragment(None)


NO_HOSTS = AllowedHosts()
LOOPBACK_HOSTS = AllowedHosts.parse(["localhost", "127.0.0.1", "[::1]"])
