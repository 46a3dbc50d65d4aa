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
from pathlib import Path
from types import TracebackType

from .access import Access
from .application import Application
from .authorization import Authorization
from .limits import Limits
from .node import Node
from .subscriptions.delivery import delivering
from .transport import HttpServer
from .users import UsersFileError
from .volumes import CatalogueLost

logger = logging.getLogger(__name__)

DEFAULT_PORT = 7777
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_BACKLOG = 1024


class ServerStartError(Exception):
    """The server cannot start: the message names the value at fault and what to do."""


def serve(
    root: Path,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    limits: Limits | None = None,
    access: Access | None = None,
    *,
    volumes: int = 1,
) -> None:
    """Serve the archive in `root` until SIGTERM or SIGINT, then finish what is under way and return.

    `root` is created if need be, with so many `volumes`; one that has more keeps them. Call it from the main thread.
    Raises ServerStartError.
    """
    with _running(root, host, port, limits or Limits(), access or Access(), volumes) as (server, listening):
        address = listening.getsockname()
        with _stopped_by_signals(server):
            logger.info("NGAS server ready at http://%s (root %s)", _authority(address[0], address[1]), root)
            server.run(listening)
    logger.info("NGAS server stopped")


class EmbeddedNgas:
    """A server in a thread of this process, for tests: `with EmbeddedNgas(root) as server: server.url`.

    Attributes: `root`, `host`, `port` (a free one for 0) and `url` are valid inside the `with`, where the server
    answers. Leaving it stops the server and releases `root`; the archive stays and can be served again.
    Raises ServerStartError on entry.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        limits: Limits | None = None,
        access: Access | None = None,
        *,
        volumes: int = 1,
    ) -> None:
        self.root = root
        self.host = "127.0.0.1"
        self.port = port
        self._limits = limits or Limits()
        self._access = access or Access()
        self._volumes = volumes
        self._exit = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address to put before a command."""
        return f"http://{_authority(self.host, self.port)}"

    def __enter__(self) -> EmbeddedNgas:
        with contextlib.ExitStack() as stack:
            server, listening = stack.enter_context(
                _running(self.root, self.host, self.port, self._limits, self._access, self._volumes)
            )
            self.port = listening.getsockname()[1]
            # Connections wait in the socket's backlog until the thread takes them, so there is nothing to wait for.
            thread = threading.Thread(target=server.run, args=(listening,), name=f"ngas-{self.port}", daemon=True)
            thread.start()
            stack.callback(_stop, server, thread)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()


@contextlib.contextmanager
def _stopped_by_signals(server: HttpServer) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: server.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _running(
    root: Path, host: str, port: int, limits: Limits, access: Access, volumes: int
) -> Iterator[tuple[HttpServer, socket.socket]]:
    with _locked(root), contextlib.closing(_listen(host, port)) as listening:
        address = listening.getsockname()
        local = ipaddress.ip_address(address[0]).is_loopback
        if not local and access.users is None:
            _require_open(host, access)
        node = _open(root, address[1], limits, volumes)
        try:
            node.pull_hosts, node.subscriber_hosts = access.pull_hosts, access.subscribers(local=local)
            node.services.append(delivering(node))
            application = Application(node, _LOCAL_NAMES | {host.lower()} if local else None, _authorization(access))
            with contextlib.closing(HttpServer(application, node)) as server:
                yield server, listening
        finally:
            node.close()


def _require_open(host: str, access: Access) -> None:
    if not access.open_to_network:
        raise ServerStartError(
            f"--host {host} lets the whole network in, and without --users anybody there may read, add and discard "
            "files. Give --users FILE (see dlg-ml ngas user), or --open-to-network if that is what you want."
        )
    logger.warning("Anyone who reaches %s can read, add and discard files: there is no authentication", host)


def _authorization(access: Access) -> Authorization | None:
    if access.users is None:
        return None
    try:
        return Authorization(access.users)
    except UsersFileError as error:
        raise ServerStartError(str(error)) from error


def _open(root: Path, port: int, limits: Limits, volumes: int) -> Node:
    try:
        return Node(root, port, limits, volumes)
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
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ServerStartError(
            f"Cannot listen on {_authority(host, port)}: {error}. "
            "Choose another port or host, or stop the program that uses it."
        ) from error


def _unusable(root: Path, error: OSError) -> ServerStartError:
    return ServerStartError(f"The root directory {root} cannot be written: {error}. Choose another one.")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _stop(server: HttpServer, thread: threading.Thread) -> None:
    server.stop()
    thread.join()
