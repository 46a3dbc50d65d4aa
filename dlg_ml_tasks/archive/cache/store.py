"""The folder of the cache as a whole: how much is there, what has to go, what is damaged. Knows nothing of networks.

Each archive has a `Shelf` of its own in it, named <host>_<port>.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from dlg_ml_tasks.archive.address import Address
from dlg_ml_tasks.archive.cache.answers import Answer, Record, load
from dlg_ml_tasks.archive.cache.shelf import (
    CONTENT_NAME,
    DIRECTORY_NAME,
    LISTING_NAME,
    RECORD_NAME,
    Shelf,
    files_named,
    is_intact,
)
from dlg_ml_tasks.archive.errors import CacheUnusable

HEADROOM = 0.9  # a full cache is emptied to this part of its limit, so that not every new file has to make room
RECOUNT = 0.05  # part of the limit that this process may add before it looks what others added
ABANDONED = timedelta(days=1)  # after this time nobody is writing a file any more

_ARCHIVE_NAME = re.compile(r"(?P<host>.+)_(?P<port>[0-9]{1,5})")


class Copy(NamedTuple):
    """One file in the cache: which archive's, what the archive said of it, and when it was fetched and last used."""

    archive: str
    answer: Answer
    content: Path
    fetched: datetime
    used: datetime

    @property
    def url(self) -> str:
        return f"ngas://{self.archive}{self.answer.name}"


class CacheStore:
    """The whole cache. Thread safe.

    folder: made with mode 0700 if missing. limit: bytes of content; the least recently used go first.
    Raises CacheUnusable if other users could put files there, which would be read as the archive's.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._lock = threading.Lock()
        self._room = 0  # bytes this process may still add before it counts again
        _make_private(folder)

    def shelf(self, archive: Address) -> Shelf:
        return Shelf(self.folder / f"{archive.host}_{archive.port}")

    def make_room(self, size: int) -> None:
        """Removes what was not used for longest, if `size` more bytes would be too much."""
        with self._lock:
            self._room -= size
            if self._room >= 0:
                return
            contents = sorted(self._contents(), key=lambda content: content.used)
            total = sum(content.size for content in contents) + size
            if total > self.limit:
                for content in contents:
                    if total <= HEADROOM * self.limit:
                        break
                    content.file.unlink(missing_ok=True)
                    total -= content.size
                self._sweep()
            self._room = int(min(self.limit - total, RECOUNT * self.limit))

    def used(self) -> int:
        """Bytes of content."""
        return sum(content.size for content in self._contents())

    def copies(self) -> Iterator[Copy]:
        """Every file in the cache, in no order."""
        for archive, directory in self._directories():
            for file in files_named(directory, RECORD_NAME):
                record = load(Record, file)
                if record is None or record.content_time is None:
                    continue
                content = Shelf(directory.parent).content_file(record)
                with suppress(FileNotFoundError):
                    status = content.stat()
                    yield Copy(archive, record, content, _time(status.st_mtime), _time(status.st_atime))

    def is_intact(self, copy: Copy) -> bool:
        """Reads a copy and compares size and checksum; one that differs is removed."""
        try:
            before = copy.content.stat()
            intact = is_intact(copy.content, copy.answer)
            os.utime(copy.content, ns=(before.st_atime_ns, before.st_mtime_ns))  # this was no use of it
        except FileNotFoundError:
            return True  # no copy, nothing wrong
        if not intact:
            copy.content.unlink(missing_ok=True)
        return intact

    def clear(self, older_than: timedelta = timedelta(0)) -> None:
        """Removes what was not used for a time: copies, and what the archive said. Touches nothing it did not make."""
        limit = time.time() - older_than.total_seconds()
        for content in self._contents():
            if content.used <= limit:
                content.file.unlink(missing_ok=True)
        self._sweep(limit)

    def _sweep(self, said_before: float = 0.0) -> None:
        """Removes what a broken-off write left, records whose content has gone, and answers given before a time."""
        for _, directory in self._directories():
            shelf = Shelf(directory.parent)
            for file in directory.iterdir():
                with suppress(FileNotFoundError):
                    if _is_of_no_use(shelf, file, said_before):
                        file.unlink()
            with suppress(OSError):  # not empty, or in use again
                directory.rmdir()

    def _contents(self) -> Iterator[_Content]:
        for _, directory in self._directories():
            for file in files_named(directory, CONTENT_NAME):
                with suppress(FileNotFoundError):
                    status = file.stat()
                    yield _Content(file, status.st_size, status.st_atime)

    def _directories(self) -> Iterator[tuple[str, Path]]:
        """The address of an archive and one of its directories."""
        for archive in self.folder.iterdir():
            match = _ARCHIVE_NAME.fullmatch(archive.name)
            if match and archive.is_dir():
                for directory in archive.iterdir():
                    if DIRECTORY_NAME.fullmatch(directory.name):
                        yield f"{match['host']}:{match['port']}", directory


class _Content(NamedTuple):
    file: Path
    size: int
    used: float


def _is_of_no_use(shelf: Shelf, file: Path, said_before: float) -> bool:
    written = file.stat().st_mtime
    if CONTENT_NAME.fullmatch(file.name):
        return False
    if file.name == LISTING_NAME:
        return written <= said_before
    if RECORD_NAME.fullmatch(file.name):
        record = load(Record, file)
        if record is not None and record.content_time is not None:
            return not shelf.content_file(record).exists()
        return record is None or written <= said_before
    return written < max(said_before, time.time() - ABANDONED.total_seconds())


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise CacheUnusable(f"the cache folder {folder} cannot be made: {error}") from error
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheUnusable(
            f"other users can write into the cache folder {folder}",
            remedy=f"Run chmod 700 {folder} if it is yours, or set DLG_ML_NGAS_CACHE_DIR to a folder of your own.",
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
