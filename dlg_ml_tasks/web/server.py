"""Runs the site on a port until it is stopped."""

from __future__ import annotations

import uvicorn

from dlg_ml_tasks.web.app import create_app
from dlg_ml_tasks.web.settings import Settings


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the site; returns when the process is asked to end. One process: the read model's refresher runs once."""
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        # Only a proxy on this machine may say who asked and under which name.
        forwarded_allow_ips="127.0.0.1",
    )
