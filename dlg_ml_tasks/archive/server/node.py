"""One running archive: its catalogue, its volumes, the threads that work on them, and the space left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .bell import Bell
from .hosts import NO_HOSTS, AllowedHosts
from .limits import Limits
from .listings import FileLists
from .records import StoredDisk, StoredFile
from .refusals import Refusal, ngams
from .space import Reservation, Space
from .status_document import Disk
from .vault import Volume
from .volumes import open_archive

P = ParamSpec("P")
T = TypeVar("T")


class Node:
    """The state that all requests share.

    `online` is False between OFFLINE and ONLINE; `busy` counts the requests under way that move files. Setting
    `stopping` ends the server when the requests under way are answered. Files are fetched from `pull_hosts` and sent to
    `subscriber_hosts` only. What is appended to `services` before the server runs is entered when it begins and left
    when it ends.
    """

    def __init__(self, root: Path, port: int, limits: Limits, volumes: int) -> None:
        """Open the archive in `root`, repairing what a crash left.

        Raises OSError, sqlite3.Error or CatalogueLost if it cannot.
        """
        self.root = root
        self.limits = limits
        self.pull_hosts: AllowedHosts = NO_HOSTS
        self.subscriber_hosts: AllowedHosts = NO_HOSTS
        self.catalogue, self.volumes = open_archive(root, volumes)
        self.space = Space(self.catalogue, limits.minimum_free_bytes, limits.capacity_bytes)
        self.host_id = f"{socket.gethostname().partition('.')[0]}:{port}"
        self.online = True
        self.busy = 0
        self.file_lists = FileLists()
        self.new_files = Bell()
        self.new_subscriptions = Bell()
        self.stopping = asyncio.Event()
        self.services: list[AbstractAsyncContextManager[object]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._volume_of = {volume.disk_id: volume for volume in self.volumes}
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ngas")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no reply waits for; it is cancelled when the server ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """The time in which requests are served."""
        async with AsyncExitStack() as stack:
            for service in self.services:
                await stack.enter_async_context(service)
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Finish what is under way and close the database."""
        self._threads.shutdown()
        self.catalogue.close()

    @property
    def disk_ids(self) -> list[str]:
        """The ids of all disks."""
        return list(self._volume_of)

    def volume(self, disk_id: str) -> Volume:
        """The volume of a disk. Raises KeyError for an unknown id."""
        return self._volume_of[disk_id]

    def reserve(self, size: int, *, without: frozenset[str] = frozenset()) -> Reservation:
        """Room for `size` bytes on the volume with the most, if its disk is not one of `without`. Raises NoRoom."""
        return self.space.reserve([v for v in self.volumes if v.mounted and v.disk_id not in without], size)

    def reserve_in_catalogue(self, size: int) -> Reservation:
        """The same for a file whose bytes go into the catalogue, which counts as lying on the first volume."""
        return self.space.reserve(self.volumes[:1], size)

    def disk(self, stored: StoredDisk) -> Disk:
        """A disk as a status document shows it, at this moment."""
        volume = self.volume(stored.disk_id)
        return Disk(stored, self.host_id, volume.directory, volume.free_bytes(), volume.mounted)

    def disks(self) -> list[Disk]:
        """All disks as status documents show them."""
        return [self.disk(stored) for stored in self.catalogue.disks()]

    def disk_of(self, file: StoredFile) -> Disk:
        """The disk a copy is on."""
        return next(disk for disk in self.disks() if disk.stored.disk_id == file.disk_id)

    def object_path(self, copy: StoredFile) -> Path:
        """Where the bytes of a copy are whose bytes are not in the catalogue."""
        return self.volume(copy.disk_id).path(copy.object or "")

    def delete_objects(self, files: list[StoredFile]) -> None:
        """Free the bytes of copies that are no longer in the catalogue. Blocking."""
        for file in files:
            if file.object is not None:
                self.volume(file.disk_id).remove(file.object)

    @property
    def state(self) -> str:
        """ONLINE or OFFLINE."""
        return "ONLINE" if self.online else "OFFLINE"

    def require_online(self, request: str) -> None:
        """Refuse a request that moves files, and so counts as busy itself, unless the state is ONLINE."""
        self.require_state(request, "ONLINE", ["IDLE", "BUSY"], busy_itself=True)

    def require_state(self, request: str, state: str, sub_states: list[str], *, busy_itself: bool = False) -> None:
        """Refuse a request that needs another state than the present one."""
        sub_state = "BUSY" if self.busy > busy_itself else "IDLE"
        if self.state != state or sub_state not in sub_states:
            raise Refusal(ngams("NGAMS_ER_IMPROPER_STATE", request, self.state, sub_state, [state], sub_states))
