"""What one archive said, and verified copies of its files, in a folder; knows nothing of networks.

    <key(directory)>/<key(path)>.json           what the archive last said of a path
                     <key(path)>.<key(ukey)>     the content of a file, read-only
                     listing.json                what the archive last said is in the directory

There is no lock and no index, so that any number of processes may share a folder on any file system. Everything appears
whole, by a rename, and content before the record that names it. A record without its content, or content that is not as
its record says, counts as absent. Removing a file that somebody reads is harmless on POSIX. Two processes that fetch one
file do the work twice.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.cache.answers import Answer, Listing, Record, load
from dlg_ml_tasks.archive.checksums import measure, recorded
from dlg_ml_tasks.archive.local_files import place
from dlg_ml_tasks.archive.naming import ROOT

log = logging.getLogger(__name__)

CHECKED_BYTES = 1 << 20  # copies up to this size have their checksum compared whenever they are used

_KEY = "[a-z2-7]{26}"
DIRECTORY_NAME = re.compile(_KEY)
RECORD_NAME = re.compile(rf"{_KEY}\.json")
CONTENT_NAME = re.compile(rf"{_KEY}\.{_KEY}")
LISTING_NAME = "listing.json"


class Shelf:
    """What one archive said, and copies of its files. Thread safe; all is on disk, where other processes find it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # --- what the archive said ---

    def record(self, path: str) -> Record | None:
        """What the archive last said of a path when it was asked for that path."""
        record = load(Record, self._record_file(path))
        return record if record is not None and record.name == path else None

    def listing(self, directory: str) -> Listing | None:
        """What the archive last said is in a directory."""
        file = self._directory(directory) / LISTING_NAME
        try:
            status = file.stat()
        except FileNotFoundError:
            return None
        listing = _parsed_listing(file, (status.st_ino, status.st_mtime_ns))
        return listing if listing is not None and listing.directory == directory else None

    def answer(self, path: str) -> Answer | None:
        """The last word of the archive on a path, from a record or a listing; None if it was never asked."""
        if path == ROOT:
            return Answer(name=ROOT, type="directory")
        said: list[tuple[int, Answer]] = []
        if record := self.record(path):
            said.append((record.said, record))
        if around := self.listing(naming.parent(path)):
            said.append((around.said, around.by_name.get(path, Answer(name=path, type="missing"))))
        if own := self.listing(path):
            said.append((own.said, Answer(name=path, type="directory")))
        return max(said, key=itemgetter(0))[1] if said else None

    def note_missing(self, path: str) -> None:
        """The archive said that nothing is at `path`; a copy of what was there is removed."""
        self._drop(path)
        self._write(self._record_file(path), Record(name=path, type="missing", said=time.time_ns()))

    def note_listing(self, directory: str, entries: list[Answer]) -> None:
        listing = Listing(directory=directory, said=time.time_ns(), entries=entries)
        self._write(self._directory(directory) / LISTING_NAME, listing)

    # --- content ---

    def content(self, answer: Answer) -> Path | None:
        """The copy of exactly this version of a file, marked as used; None if there is none in good order."""
        record = self.record(answer.name)
        if record is None or record.content_time is None or record.ukey != answer.ukey:
            return None
        file = self.content_file(record)
        try:
            status = file.stat()
            untouched = (status.st_size, status.st_mtime_ns) == (record.size, record.content_time)
            if (not untouched or record.size <= CHECKED_BYTES) and not is_intact(file, record):
                file.unlink()
                return None
            if not untouched:
                self._write(
                    self._record_file(record.name), record.model_copy(update={"content_time": status.st_mtime_ns})
                )
            # The access time by hand: most file systems are mounted with relatime or noatime.
            os.utime(file, ns=(time.time_ns(), status.st_mtime_ns))
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a copy of %s cannot be used: %s", answer.name, error)
            return None
        return file

    def content_file(self, answer: Answer) -> Path:
        """Where the copy of this version is, or would be."""
        return (
            self._directory(naming.parent(answer.name)) / f"{naming.key(answer.name)}.{naming.key(answer.ukey or '')}"
        )

    def place_for(self, answer: Answer) -> Path:
        """Where a copy is to be put by a rename, once it is whole and verified; the folder exists then."""
        file = self.content_file(answer)
        self._make_directory(file.parent)
        return file

    def keep(self, answer: Answer) -> Path:
        """Takes up the copy that was put in its place; older versions are removed. Returns where it is."""
        file = self.content_file(answer)
        if answer.size > CHECKED_BYTES:
            _flush(file)
        file.chmod(0o400)
        written = file.stat().st_mtime_ns
        # As used: a download that an earlier process began brings that one's times.
        os.utime(file, ns=(time.time_ns(), written))
        before = self.record(answer.name)
        self._write(
            self._record_file(answer.name), Record(**answer.model_dump(), said=time.time_ns(), content_time=written)
        )
        if before is not None and before.ukey != answer.ukey:
            self.content_file(before).unlink(missing_ok=True)
        return file

    def forget(self, path: str) -> None:
        """Removes what is known of a path that changes in the archive, and of the directories above it."""
        self._drop(path)
        while path != ROOT:
            path = naming.parent(path)
            self._drop(path)

    def _drop(self, path: str) -> None:
        record = self.record(path)
        if record is not None:
            self.content_file(record).unlink(missing_ok=True)
        self._record_file(path).unlink(missing_ok=True)
        (self._directory(path) / LISTING_NAME).unlink(missing_ok=True)

    def forget_tree(self, path: str) -> None:
        """Removes what is known of a path and everything below it. Looks through all that is kept of the archive."""
        self.forget(path)
        below = f"{path.rstrip('/')}/"
        for directory in self._folder.glob("*/"):
            for file in files_named(directory, RECORD_NAME):
                record = load(Record, file)
                if record is not None and record.name.startswith(below):
                    self._drop(record.name)
            listing = load(Listing, directory / LISTING_NAME)
            if listing is not None and f"{listing.directory}/".startswith(below):
                (directory / LISTING_NAME).unlink(missing_ok=True)

    def _directory(self, directory: str) -> Path:
        return self._folder / naming.key(directory)

    def _record_file(self, path: str) -> Path:
        return self._directory(naming.parent(path)) / f"{naming.key(path)}.json"

    def _make_directory(self, directory: Path) -> None:
        for folder in (self._folder, directory):  # one by one: mkdir gives its mode to the last only
            folder.mkdir(mode=0o700, exist_ok=True)

    def _write(self, file: Path, value: Record | Listing) -> None:
        self._make_directory(file.parent)
        place(value.model_dump_json().encode(), file)


def is_intact(file: Path, answer: Answer) -> bool:
    """Whether a file has the size and the checksum that the archive gave."""
    if file.stat().st_size != answer.size:
        return False
    algorithm, _, value = (answer.checksum or "").partition(":")
    expected = recorded(value, algorithm)
    if expected is None:
        return True
    with file.open("rb") as stream:
        return measure(stream, expected.algorithm)[1] == expected


def files_named(directory: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):  # noqa: PTH208  half the time of iterdir, in the loop over all files
            if pattern.fullmatch(name):
                yield directory / name


@lru_cache(maxsize=16)
def _parsed_listing(file: Path, _identity: tuple[int, int]) -> Listing | None:
    """Kept in memory for as long as the file stays the same: one listing answers for each of its files."""
    return load(Listing, file)


def _flush(file: Path) -> None:
    """On disk, so that no power failure leaves a copy of the right size and wrong bytes."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
