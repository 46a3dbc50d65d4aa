"""A relay that takes down what is asked of the archive."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest


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
