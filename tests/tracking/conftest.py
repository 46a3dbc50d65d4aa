"""A real tracking server in front of the embedded archive, and a relay that takes down what is asked of the archive."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

START_SECONDS = 180


class Relay:
    """Passes bytes between clients and the archive, and notes each command that goes by.

    Attributes: `url` (``ngas://127.0.0.1:port``) and `commands` (such as ``["STATUS", "QARCHIVE"]``, in order).
    """

    _REQUEST_LINE = re.compile(rb"(?:GET|POST|PUT) /([A-Z]+)[? ]")

    def __init__(self, archive: str) -> None:
        target = urlsplit(archive)
        self._target = (target.hostname, target.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"ngas://127.0.0.1:{self._server.getsockname()[1]}"
        self.commands: list[str] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._target)
            self._sockets += [client, upstream]
            for source, sink, seen in ((client, upstream, self._note), (upstream, client, None)):
                thread = threading.Thread(target=self._pump, args=(source, sink, seen))
                self._threads.append(thread)
                thread.start()

    def _note(self, block: bytes) -> None:
        self.commands += [name.decode() for name in self._REQUEST_LINE.findall(block)]

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, seen: Callable[[bytes], None] | None) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if seen is not None:
                    seen(block)
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(archive: str) -> Iterator[Relay]:
    """The embedded archive seen through a relay that notes the commands."""
    relay = Relay(archive)
    yield relay
    relay.close()


@pytest.fixture(scope="session")
def tracking_server(archive: str, tracking_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real `mlflow server` that passes artifacts on to the embedded archive; its database is `tracking_store`."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_", "DLG_ML"))}
    environment |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{tracking_store}"),
                *("--artifacts-destination", f"{archive}/proxied", "--workers", "1"),
            ],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", server, folder / "server.log")
        yield url
    finally:
        # The uvicorn worker is a child of the command; both are in the session made for them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(timeout=60)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(URLError, OSError), urlopen(url, timeout=5) as reply:
            assert reply.status == 200
            return
        time.sleep(0.25)
    raise AssertionError(f"the tracking server did not start in {START_SECONDS} s:\n{log.read_text()[-2000:]}")
