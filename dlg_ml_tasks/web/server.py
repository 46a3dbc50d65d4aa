"""Runs the site on a port until it is stopped."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dlg_ml_tasks.web.app import create_app
from dlg_ml_tasks.web.settings import Settings
from dlg_ml_tasks.web.transfer.streaming import TRANSPORT

_CONNECTIONS = 500
_SWITCH_S = 0.0005
"""Seconds for which a thread that computes keeps Python's lock from others: while runs are read, a page waits dozens of times."""
_STALLED_MS = 120_000


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # whichever of uvicorn's is installed
    """Tells the application of the connection, so that it can hand on a large file past Python (see `streaming`)."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.app_state = {**self.app_state, TRANSPORT: transport}
        super().connection_made(transport)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the site; returns when the process is asked to end. One process: the read model's refresher runs once.

    Whoever asks is who connects, unless that is one of the named proxies.
    """
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        http=_Protocol,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        limit_concurrency=_CONNECTIONS,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=",".join(settings.proxies),
    )
    sys.setswitchinterval(_SWITCH_S)
    listener = config.bind_socket()
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Every connection inherits it: whoever asks for much and takes nothing does not stay for ever.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
    uvicorn.Server(config).run([listener])
