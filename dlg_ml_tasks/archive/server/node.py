"""One running archive: its bytes, its catalogue, the threads that work on them, and the space left."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from .catalogue import Catalogue
from .refusals import Refusal, ngams
from .vault import CatalogueLost, Vault

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

VERSION = "12.0/embedded"
SLOT_ID = "volume1"


class Node:
    """The state that all requests share. `online` is False between OFFLINE and ONLINE."""

    def __init__(self, root: Path, port: int, *, minimum_free_bytes: int, stall_seconds: float) -> None:
        """Open the archive in `root`, repairing what a crash left.

        Raises OSError, sqlite3.Error or CatalogueLost if it cannot.
        """
        self.vault = Vault(root)
        self.catalogue = _catalogue(root / "catalogue.sqlite", self.vault)
        self.disk_id = self.catalogue.volume().disk_id
        self.host_id = f"{socket.gethostname().partition('.')[0]}:{port}"
        self.stall_seconds = stall_seconds
        self.online = True
        self._minimum_free_bytes = minimum_free_bytes
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ngas")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Finish what is under way and close the database."""
        self._threads.shutdown()
        self.catalogue.close()

    def has_room_for(self, size: int) -> bool:
        """Whether a file of `size` bytes fits and leaves the minimum free."""
        return self.vault.free_bytes() - size >= self._minimum_free_bytes

    def require_online(self, request: str) -> None:
        """Refuse a request that needs the ONLINE state."""
        if not self.online:
            allowed = (["ONLINE"], ["IDLE", "BUSY"])
            raise Refusal(ngams("NGAMS_ER_IMPROPER_STATE", request, "OFFLINE", "IDLE", *allowed))


def _catalogue(path: Path, vault: Vault) -> Catalogue:
    if not path.exists() and not vault.is_empty():
        raise CatalogueLost(f"The catalogue {path} is missing, but there are files for it to know")
    catalogue = Catalogue(path)
    try:
        vault.reconcile(catalogue.objects())
    except BaseException:
        catalogue.close()
        raise
    return catalogue


def is_full(error: BaseException) -> bool:
    """Whether an error of the file system or of SQLite means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)
