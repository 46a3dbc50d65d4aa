"""An embedded archive for the session, a directory of its own for each test, and a proxy that spoils what passes."""

from __future__ import annotations

import socket
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from dlg_ml_tasks.archive import NgasClient, NgasFileSystem
from dlg_ml_tasks.archive.server import EmbeddedNgas


class Request(NamedTuple):
    """One HTTP request as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def command(self) -> str:
        return self.head.split(b" ", 2)[1].split(b"?")[0].decode().lstrip("/")

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None


class Proxy:
    """Stands between a client and a server; notes every request and lets `answer` decide what comes back.

    answer(request, forward): the raw reply, of which `forward()` gives the server's own; b"" drops the connection.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request, Callable[[], bytes]], bytes] = lambda _, forward: forward()
        self._upstream = upstream
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=True)
        self._server.daemon_threads = False
        self.host, self.port = self._server.server_address[:2]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def commands(self) -> list[str]:
        return [request.command for request in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = self.rfile.readline()
                    if not line:
                        return
                    head += line
                request = Request(head, b"")
                request = Request(head, self.rfile.read(int(request.header("Content-Length") or 0)))
                proxy.requests.append(request)
                self.wfile.write(proxy.answer(request, lambda: proxy._forward(request)))

        return Handler

    def _forward(self, request: Request) -> bytes:
        with socket.create_connection(self._upstream) as upstream:
            upstream.sendall(request.head + request.body)
            with upstream.makefile("rb") as reply:
                return reply.read()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNgas]:
    with EmbeddedNgas(tmp_path_factory.mktemp("ngas")) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedNgas) -> NgasClient:
    return NgasClient(server.host, server.port, timeout=10, patience=0)


@pytest.fixture
def fs(server: EmbeddedNgas) -> NgasFileSystem:
    return NgasFileSystem(server.host, server.port, timeout=10, patience=0, skip_instance_cache=True)


@pytest.fixture
def home() -> str:
    """A directory that no other test uses; nothing is there yet."""
    return f"/{uuid.uuid4().hex}"


@pytest.fixture
def proxy(server: EmbeddedNgas) -> Iterator[Proxy]:
    standing = Proxy((server.host, server.port))
    yield standing
    standing.close()


@pytest.fixture
def proxied(proxy: Proxy) -> NgasClient:
    """A client behind the proxy that does not give up at once."""
    return NgasClient(proxy.host, proxy.port, timeout=10, patience=5)


@pytest.fixture
def proxied_fs(proxy: Proxy) -> NgasFileSystem:
    return NgasFileSystem(proxy.host, proxy.port, timeout=10, patience=5, skip_instance_cache=True)


@pytest.fixture
def file_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def http_reply() -> Callable[..., bytes]:
    """Builds a raw reply as NGAS writes it."""

    def build(code: int, body: bytes | str, reason: str = "X", **headers: Any) -> bytes:
        content = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.0 {code} {reason}", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + content

    return build
