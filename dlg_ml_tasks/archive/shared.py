"""What all clients of one server in this process share: connections, the limit of requests, and what was learnt of it."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

from dlg_ml_tasks.archive.address import Address
from dlg_ml_tasks.archive.checksums import PREFERRED, Algorithm
from dlg_ml_tasks.archive.limit import CEILING, AdaptiveLimit
from dlg_ml_tasks.archive.routes import route_to

BLOCK = 1 << 20  # bytes moved at a time, in either direction


class ConnectionWasStale(ConnectionResetError):
    """A connection that had served an earlier request turned out to be closed."""


class Shared:
    """The state of one server as this process knows it. Thread safe.

    algorithm: the kind of checksum that uploads are sent with.
    """

    def __init__(self, address: Address) -> None:
        self.limit = AdaptiveLimit(str(address))
        self.pool = _Pool(*route_to(address), maxsize=CEILING, retries=False, blocksize=BLOCK)
        self.algorithm: Algorithm = PREFERRED
        self._writers: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._writers_guard = threading.Lock()

    @contextmanager
    def sole_writer(self, file_id: str) -> Iterator[None]:
        """Waits until no other thread writes this file.

        The real server gives concurrent uploads of one id the same version number, and one of them may be damaged.
        """
        with self._writers_guard:
            lock = self._writers.setdefault(file_id, threading.Lock())
        with lock:
            yield


def shared_by_clients_of(address: Address) -> Shared:
    """The one `Shared` of a server; a new one in a forked child, which must not use its parent's sockets and locks."""
    with _guard:
        if address not in _servers:
            _servers[address] = Shared(address)
        return _servers[address]


class _Connection(HTTPConnection):
    """Knows whether it was used before, because then a server may have closed it between two requests."""

    used = False

    def connect(self) -> None:
        super().connect()
        self.used = False

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3's own
        try:
            response = super().getresponse()
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            if self.used:
                raise ConnectionWasStale(str(error)) from error
            raise
        self.used = True
        return response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


_servers: dict[Address, Shared] = {}
_guard = threading.Lock()


def _forget_everything() -> None:
    global _guard
    _guard = threading.Lock()
    _servers.clear()


os.register_at_fork(after_in_child=_forget_everything)
