"""Starting and stopping the server: in the foreground for a user, in a thread for a test."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import uvicorn

from .application import Application
from .node import Node
from .vault import CatalogueLost

logger = logging.getLogger(__name__)

DEFAULT_PORT = 7777
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# NGAS itself takes queries of this size; longer ones are refused before they are read.
_LONGEST_REQUEST_HEAD = 64 * 1024
_BACKLOG = 1024
_IDLE_CONNECTION_SECONDS = 60
_SHUTDOWN_SECONDS = 10


class ServerStartError(Exception):
    """The server cannot start: the message names the value at fault and what to do."""


@dataclass(frozen=True)
class Limits:
    """When the server says no: `minimum_free_bytes` of disk are never filled, and an upload from which nothing comes
    for `stall_seconds` is given up."""

    minimum_free_bytes: int = 64 * 2**20
    stall_seconds: float = 60.0


def serve(root: Path, host: str = "127.0.0.1", port: int = DEFAULT_PORT, limits: Limits | None = None) -> None:
    """Serve the archive in `root` until SIGTERM or SIGINT, then finish what is under way and return.

    `root` is created if need be. There is no authentication: any `host` but loopback opens the archive to the network.
    Call it from the main thread. Raises ServerStartError.
    """
    with _running(root, host, port, limits or Limits()) as (server, listening):
        address = listening.getsockname()
        with _stopped_by_signals(server):
            logger.info("NGAS server ready at http://%s (root %s)", _authority(address[0], address[1]), root)
            server.run(sockets=[listening])
    logger.info("NGAS server stopped")


class EmbeddedNgas:
    """A server in a thread of this process, for tests: `with EmbeddedNgas(root) as server: server.url`.

    Attributes: `root`, `host`, `port` (a free one for 0) and `url` are valid inside the `with`, where the server
    answers. Leaving it stops the server and releases `root`; the archive stays and can be served again.
    Raises ServerStartError on entry.
    """

    def __init__(self, root: Path, port: int = 0, limits: Limits | None = None) -> None:
        self.root = root
        self.host = "127.0.0.1"
        self.port = port
        self._limits = limits or Limits()
        self._exit = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address to put before a command."""
        return f"http://{_authority(self.host, self.port)}"

    def __enter__(self) -> EmbeddedNgas:
        with contextlib.ExitStack() as stack:
            server, listening = stack.enter_context(_running(self.root, self.host, self.port, self._limits))
            self.port = listening.getsockname()[1]
            # Connections wait in the socket's backlog until the thread takes them, so there is nothing to wait for.
            thread = threading.Thread(target=server.run, args=([listening],), name=f"ngas-{self.port}", daemon=True)
            thread.start()
            stack.callback(_stop, server, thread)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()


@contextlib.contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    # uvicorn repeats the signal that stopped it, for whoever handled signals before: here the server itself, so that
    # a process that has ended well is not killed at the last moment.
    before = {stop: signal.signal(stop, server.handle_exit) for stop in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


@contextlib.contextmanager
def _running(root: Path, host: str, port: int, limits: Limits) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    with _locked(root), contextlib.closing(_listen(host, port)) as listening:
        address = listening.getsockname()
        local = ipaddress.ip_address(address[0]).is_loopback
        if not local:
            logger.warning("Anyone who reaches %s can read, add and discard files: there is no authentication", host)
        node = _open(root, address[1], limits)
        try:
            application = Application(node, _LOCAL_NAMES | {host.lower()} if local else None)
            yield uvicorn.Server(_configuration(application)), listening
        finally:
            node.close()


def _configuration(application: Application) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        headers=[("Server", "NGAMS/12.0-embedded")],
        h11_max_incomplete_event_size=_LONGEST_REQUEST_HEAD,
        timeout_keep_alive=_IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def _open(root: Path, port: int, limits: Limits) -> Node:
    try:
        return Node(root, port, minimum_free_bytes=limits.minimum_free_bytes, stall_seconds=limits.stall_seconds)
    except OSError as error:
        raise _unusable(root, error) from error
    except CatalogueLost as error:
        raise ServerStartError(f"{error}. Restore {root / 'catalogue.sqlite'} from a backup.") from error
    except sqlite3.Error as error:
        raise ServerStartError(
            f"The catalogue {root / 'catalogue.sqlite'} cannot be used: {error}. "
            "Restore it from a backup, or choose another root directory."
        ) from error


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold `root` for this server alone: two would remove each other's staged files."""
    path = root / "lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise _unusable(root, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ServerStartError(
                f"{root} is already served by another NGAS server (process {file.read().strip() or 'unknown'}). "
                "Stop that one, or choose another root directory."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ServerStartError(
            f"Cannot listen on {_authority(host, port)}: {error}. "
            "Choose another port or host, or stop the program that uses it."
        ) from error
    # Accepted connections inherit it. Without it each reply waits 40 ms for the acknowledgement of its own header:
    # asyncio sets it only on sockets that were made with an explicit IPPROTO_TCP.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _unusable(root: Path, error: OSError) -> ServerStartError:
    return ServerStartError(f"The root directory {root} cannot be written: {error}. Choose another one.")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _stop(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()
