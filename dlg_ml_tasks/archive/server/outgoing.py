"""The requests the server itself makes, to subscribers and to the sources of a pull: no proxy, no cookie, no redirect
that nobody has checked."""

from __future__ import annotations

import aiohttp

_CONNECT_SECONDS = 10.0


def outgoing_session(stall_seconds: float) -> aiohttp.ClientSession:
    """A session of the running event loop, to be closed by its user.

    Nothing limits the whole of a transfer, as a large file takes its time; a pause of `stall_seconds` ends it.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),  # NGAS serves one request per connection
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=stall_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        # The bytes are archived as they come.
        auto_decompress=False,
        skip_auto_headers=["Accept-Encoding", "User-Agent"],
        headers={"Accept-Encoding": "identity", "User-Agent": "dlg-ml-tasks archive"},
        trust_env=False,
    )
