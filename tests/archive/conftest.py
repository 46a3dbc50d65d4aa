"""An embedded archive for the session, a directory of its own for each test, and a proxy that spoils what passes."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import struct
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
            # One request per connection on either side, as the real server has it: a reply ends where it closes.
            head = b"\r\n".join([request.head.removesuffix(b"\r\n\r\n"), b"Connection: close", b"", b""])
            upstream.sendall(head + request.body)
            with upstream.makefile("rb") as reply:
                return reply.read()


class Fault(NamedTuple):
    """What befalls one connection. Offsets count bytes from its beginning, those of the client or those of the server.

    The connection is reset after `cut_up` bytes of the client or `cut_down` bytes of the server, or closed if `gently`;
    one bit is flipped; nothing more comes after `stall_down` bytes of the server, or comes `twice`; or the reply is
    `instead`, and the server never hears of the request.
    """

    cut_up: int | None = None
    cut_down: int | None = None
    gently: bool = False
    flip_up: int | None = None
    flip_down: int | None = None
    bit: int = 0
    stall_down: int | None = None
    twice: bool = False
    instead: bytes | None = None


class Wire:
    """The bytes between a client and a server, and what befalls them: one fault per connection, in order.

    `faults` are used up; `always` befalls every connection after them.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.faults: list[Fault] = []
        self.always = Fault()
        self.connections = 0
        self.carried_down = 0  # bytes of the server's that reached the client
        self._upstream = upstream
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listening.getsockname()[:2]
        self._closing = threading.Event()
        self._break = threading.Event()
        self._hanging_up = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def hang_up(self) -> None:
        """Ends all connections, so that what befalls them does not befall a later user of a kept one."""
        self._hanging_up.set()
        for thread in self._threads[1:]:
            thread.join()
        del self._threads[1:]
        self._hanging_up.clear()

    def break_next_request(self) -> None:
        """Resets the connection on which the next bytes of a client come, before the server hears of them."""
        self._break.set()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.faults.pop(0) if self.faults else self.always
            self._threads.append(threading.Thread(target=self._carry, args=(client, fault)))
            self._threads[-1].start()

    def _carry(self, client: socket.socket, fault: Fault) -> None:
        with client, contextlib.suppress(OSError):
            if fault.instead is not None:
                client.recv(1 << 16)
                client.sendall(fault.instead)
                return
            with socket.create_connection(self._upstream) as server:
                if not self._pump(client, server, fault) and not fault.gently:
                    # Zero seconds of lingering: closing sends a reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pump(self, client: socket.socket, server: socket.socket, fault: Fault) -> bool:
        """Whether the connection came to a natural end."""
        up = _Direction(client, server, fault.cut_up, fault.flip_up, fault.bit, None)
        down = _Direction(server, client, fault.cut_down, fault.flip_down, fault.bit, fault.stall_down)
        if fault.cut_up == 0:
            return False
        repeated = not fault.twice
        while not self._closing.is_set() and not self._hanging_up.is_set():
            ready, _, _ = select.select([client, server], [], [], 0.02)
            if not ready and not repeated and down.carried:
                client.sendall(down.carried)
                repeated = True
            if client in ready and self._break.is_set():
                self._break.clear()
                return False
            for direction in (up, down):
                if direction.source in ready:
                    ended, cut = direction.carry()
                    self.carried_down += direction.last if direction is down else 0
                    if ended or cut:
                        return ended
        return True


class _Direction:
    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        cut: int | None,
        flip: int | None,
        bit: int,
        stall: int | None,
    ) -> None:
        self.source = source
        self.carried = b""
        self.last = 0
        self._target = target
        self._cut = cut
        self._flip = flip
        self._bit = bit
        self._stall = stall
        self._offset = 0

    def carry(self) -> tuple[bool, bool]:
        """Whether the source ended, and whether the fault ends the connection."""
        block = bytearray(self.source.recv(1 << 16))
        self.last = 0
        if not block:
            return True, False
        if self._flip is not None and 0 <= self._flip - self._offset < len(block):
            block[self._flip - self._offset] ^= 1 << self._bit
        for limit in (self._cut, self._stall):
            if limit is not None:
                del block[max(0, limit - self._offset) :]
        self._offset += len(block)
        self.last = len(block)
        self.carried = (self.carried + block)[: 1 << 16]
        self._target.sendall(block)
        return False, self._cut is not None and self._offset >= self._cut


@pytest.fixture
def wire(server: EmbeddedNgas) -> Iterator[Wire]:
    standing = Wire((server.host, server.port))
    yield standing
    standing.close()


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
