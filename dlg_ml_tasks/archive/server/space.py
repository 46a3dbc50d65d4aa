"""The room that is left in the archive, with what the uploads under way will take of it."""

from __future__ import annotations

import errno
import sqlite3
from types import TracebackType

from .catalogue import Catalogue
from .vault import Volume


class NoRoom(Exception):
    """The archive cannot take a file of this size."""


class Space:
    """Hands out room for files before their bytes come. Used by the event loop only."""

    def __init__(self, catalogue: Catalogue, minimum_free_bytes: int, capacity_bytes: int | None) -> None:
        """`minimum_free_bytes` of each disk stay free, and all files together have at most `capacity_bytes`."""
        self._catalogue = catalogue
        self._minimum_free_bytes = minimum_free_bytes
        self._capacity_bytes = capacity_bytes
        self._promised = 0
        self._unwritten = 0

    def free_bytes(self, volume: Volume) -> int:
        """What a file may have at most to go to `volume`."""
        # All volumes answer for all promises, as they may share a file system.
        return volume.free_bytes() - self._unwritten - self._minimum_free_bytes

    def reserve(self, volumes: list[Volume], size: int) -> Reservation:
        """Room for `size` bytes on the one of `volumes` with the most; to be used in a `with`. Raises NoRoom."""
        free, room = max(((self.free_bytes(volume), volume) for volume in volumes), default=(0, None), key=_free)
        if room is None or free < size:
            raise NoRoom
        capacity = self._capacity_bytes
        if capacity is not None and self._catalogue.bytes_stored() + self._promised + size > capacity:
            raise NoRoom
        self._promised += size
        self._unwritten += size
        return Reservation(self, room, size)

    def written(self, size: int) -> None:
        """Tell that so many promised bytes are in the file system now."""
        self._unwritten -= size

    def give_back(self, promised: int, unwritten: int) -> None:
        """Tell that a promise is over: the bytes are stored, or will not come."""
        self._promised -= promised
        self._unwritten -= unwritten


def _free(candidate: tuple[int, Volume | None]) -> int:
    return candidate[0]


class Reservation:
    """Room on `volume` until the end of the `with`."""

    def __init__(self, space: Space, volume: Volume, size: int) -> None:
        self.volume = volume
        self._space = space
        self._size = size
        self._unwritten = size

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._space.give_back(self._size, self._unwritten)

    def written(self, size: int) -> None:
        """Tell that so many of the bytes are in the file system now."""
        self._unwritten -= size
        self._space.written(size)


def is_full(error: BaseException) -> bool:
    """Whether an error of the file system or of SQLite means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)
