"""What the archive holds: one row per copy of a file version in an SQLite database, durable once a change is done.

The bytes of small files are kept here too: a durable commit flushes the disk once for all who wait, where a file of its
own needs two flushes that nobody shares.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from .group_commit import GroupCommit
from .records import NewFile, Overwrite, Registered, StoredDisk, StoredFile, timestamp
from .refusals import Refusal
from .schema import prepare

T = TypeVar("T")

_COLUMNS = ", ".join(f"files.{field.name}" for field in fields(StoredFile))
_INSERT = f"INSERT INTO files VALUES ({', '.join('?' * len(fields(StoredFile)))})"  # noqa: S608 - constants
_PATH_PREFIX = "EmbeddedArchive"
# Pages of 4 KiB. The log is written back to the database each time it has grown by so many; less often than SQLite's
# default, because bodies fill it faster than rows.
_PAGES_PER_CHECKPOINT = 4000
_LONGEST_LOG = 64 * 2**20
# Free pages are kept for the next files up to the first number, and given back in steps of the second.
_FREE_PAGES = 4096
_PAGES_PER_STEP = 256


class Catalogue:
    """The rows of the archive. Reading methods may be called from any thread; changes return a Future.

    A read of single rows by id takes microseconds and waits for no writer (the database is in WAL mode), so the event
    loop may do it itself; one that lists many rows belongs in a thread.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database file `path`. Raises sqlite3.Error if it is not one, or of a later version."""
        self._path = path
        self._idle_readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        writer = self._connect()
        try:
            prepare(writer, path)
            writer.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_PER_CHECKPOINT}")
            writer.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
        except BaseException:
            writer.close()
            raise
        self._writer = GroupCommit(writer)

    def close(self) -> None:
        """Finish the changes under way and close every connection."""
        self._writer.close()
        while True:
            try:
                self._idle_readers.get_nowait().close()
            except Empty:
                return

    def change(self, apply: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `apply` in a transaction, whole or not at all; done when its outcome is on disk."""
        return self._writer.submit(apply)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with."""
        try:
            connection = self._idle_readers.get_nowait()
        except Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle_readers.put(connection)

    def register(self, new: NewFile, overwrite: Overwrite | None = None) -> Future[Registered]:
        """Add a file under its next version, or replace one.

        Two clients that archive one id at once get two versions, because the number is chosen in the transaction.
        """

        def apply(connection: sqlite3.Connection) -> Registered:
            latest, container_id = latest_version(connection, new.file_id)
            if overwrite is None:
                version, replaced = latest + 1, []
            else:
                version = _version_to_replace(connection, new, overwrite, latest)
                replaced = _remove(connection, "file_id = ? AND file_version = ?", new.file_id, version)
            stored = add(connection, new, version, container_id)
            (disk,) = _disks(connection, "WHERE disk_id = ?", new.disk_id)
            return Registered(stored, disk, replaced)

        return self.change(apply)

    def add_copy(self, source: StoredFile, disk_id: str, object_: str) -> Future[StoredFile | None]:
        """Add a copy of `source` whose bytes are in place on another disk.

        None, and nothing is added, if `source` has been replaced or discarded since, or the disk has a copy already.
        """
        copy = replace(source, disk_id=disk_id, object=object_, body_id=None)

        def apply(connection: sqlite3.Connection) -> StoredFile | None:
            current = select_files(
                connection, "WHERE file_id = ? AND file_version = ?", source.file_id, source.file_version
            )
            if source not in current or any(other.disk_id == disk_id for other in current):
                return None
            stored = replace(copy, file_name=_free_name(connection, copy.file_name, copy.file_id, disk_id))
            connection.execute(_INSERT, astuple(stored))
            return stored

        return self.change(apply)

    def discard(self, file_id: str, version: int, disk_id: str) -> Future[StoredFile | None]:
        """Forget one copy; gives its row, or None if there was none."""

        def apply(connection: sqlite3.Connection) -> StoredFile | None:
            condition = "file_id = ? AND file_version = ? AND disk_id = ?"
            removed = _remove(connection, condition, file_id, version, disk_id)
            return removed[0] if removed else None

        return self.change(apply)

    def discard_spare(self, copies: list[StoredFile], least: int) -> Future[list[StoredFile] | None]:
        """Forget copies of which there are at least `least` on as many disks; None, and nothing is forgotten, if one of
        them has fewer."""

        def apply(connection: sqlite3.Connection) -> list[StoredFile] | None:
            for copy in copies:
                if (
                    len(
                        select_files(
                            connection, "WHERE file_id = ? AND file_version = ?", copy.file_id, copy.file_version
                        )
                    )
                    < least
                ):
                    return None
            condition = "file_id = ? AND file_version = ? AND disk_id = ?"
            removed = [_remove(connection, condition, copy.file_id, copy.file_version, copy.disk_id) for copy in copies]
            return [copy for single in removed for copy in single]

        return self.change(apply)

    def add_disk(self, disk_id: str, slot_id: str) -> Future[None]:
        """Make a disk known, if it is not."""

        def apply(connection: sqlite3.Connection) -> None:
            row = (disk_id, slot_id, timestamp(), 0, 0)
            connection.execute("INSERT OR IGNORE INTO disks VALUES (?, ?, ?, ?, ?)", row)

        return self.change(apply)

    def copies(self, file_id: str, version: int | None = None) -> list[StoredFile]:
        """All copies of one version of a file, of the latest for None."""
        condition, values = _one_version(file_id, version)
        return self.select(condition, *values)

    def copies_with_bodies(self, file_id: str, version: int | None = None) -> list[tuple[StoredFile, bytes | None]]:
        """The same with the bytes of those that are kept in the catalogue."""
        condition, values = _one_version(file_id, version)
        with self.reading() as connection:
            query = f"SELECT {_COLUMNS}, body FROM files LEFT JOIN bodies USING (body_id) {condition}"  # noqa: S608 - constants
            return [(StoredFile(*row[:-1]), row[-1]) for row in connection.execute(query, values)]

    def like(self, pattern: str) -> list[StoredFile]:
        """Every copy of the files whose id matches the SQL LIKE `pattern` (`%` and `_`, no escape).

        Case-sensitive, as NGAS is on PostgreSQL; on SQLite it is not. That lets SQLite look a prefix up in the index
        (GLOB is LIKE with other wildcards and an index) where the real server reads the whole table.
        """
        return self.select("WHERE file_id GLOB ?", _glob(pattern))

    def between(self, start: str, end: str) -> list[StoredFile]:
        """The files ingested between two dates, both included."""
        return self.select("WHERE ingestion_date BETWEEN ? AND ?", start, end)

    def recent(self, count: int) -> list[StoredFile]:
        """The newest `count` files, newest first."""
        return self.select("ORDER BY ingestion_date DESC LIMIT ?", count)

    def select(self, condition: str, *values: str | int) -> list[StoredFile]:
        """The rows that satisfy an SQL condition on `files`, which must be a constant with `?` for its values."""
        with self.reading() as connection:
            return select_files(connection, condition, *values)

    def objects(self, disk_id: str) -> dict[str, int]:
        """The objects the rows of a disk name, with their sizes in bytes."""
        query = "SELECT object, file_size FROM files WHERE disk_id = ? AND object IS NOT NULL"
        with self.reading() as connection:
            return dict(connection.execute(query, (disk_id,)))

    def disks(self) -> list[StoredDisk]:
        """The disks, by slot, with their totals."""
        with self.reading() as connection:
            return _disks(connection, "ORDER BY length(slot_id), slot_id")

    def bytes_stored(self) -> int:
        """The sum of the sizes of all copies."""
        with self.reading() as connection:
            (total,) = connection.execute("SELECT sum(bytes_stored) FROM disks").fetchone()
        return total or 0

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def add(connection: sqlite3.Connection, new: NewFile, version: int, container_id: str | None) -> StoredFile:
    """Insert a file, with its body if it has one, as part of a change."""
    now = timestamp()
    name = f"{_PATH_PREFIX}/{now[:10]}/{version}/{new.base_name}"
    body_id = None
    if new.body is not None:
        body_id = connection.execute("INSERT INTO bodies (body) VALUES (?)", (new.body,)).lastrowid
    stored = StoredFile(
        file_id=new.file_id,
        file_version=version,
        disk_id=new.disk_id,
        file_name=_free_name(connection, name, new.file_id, new.disk_id),
        format=new.format,
        file_size=new.file_size,
        checksum=new.checksum,
        checksum_plugin=new.checksum_plugin,
        ingestion_date=now,
        io_time=new.io_time,
        container_id=container_id,
        object=new.object,
        body_id=body_id,
    )
    connection.execute(_INSERT, astuple(stored))
    return stored


def select_files(connection: sqlite3.Connection, condition: str, *values: str | int) -> list[StoredFile]:
    """The rows that satisfy an SQL condition on `files`, which must be a constant with `?` for its values."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM files {condition}", values)  # noqa: S608 - constants
    return [StoredFile(*row) for row in rows]


def _disks(connection: sqlite3.Connection, condition: str, *values: str) -> list[StoredDisk]:
    rows = connection.execute(f"SELECT * FROM disks {condition}", values)  # noqa: S608 - constants
    return [StoredDisk(*row) for row in rows]


def _one_version(file_id: str, version: int | None) -> tuple[str, tuple[str | int, ...]]:
    if version is None:
        latest = "SELECT max(file_version) FROM files WHERE file_id = ?"
        return f"WHERE file_id = ? AND file_version = ({latest})", (file_id, file_id)
    return "WHERE file_id = ? AND file_version = ?", (file_id, version)


def latest_version(connection: sqlite3.Connection, file_id: str) -> tuple[int, str | None]:
    """The latest version of a file (0 if there is none) and the container it is in."""
    query = "SELECT file_version, container_id FROM files WHERE file_id = ? ORDER BY file_version DESC LIMIT 1"
    return connection.execute(query, (file_id,)).fetchone() or (0, None)


def _version_to_replace(connection: sqlite3.Connection, new: NewFile, overwrite: Overwrite, latest: int) -> int:
    if not latest:
        asked = overwrite.version or "<none>"
        raise Refusal(f"file id={new.file_id}, version={asked} doesn't exist, can't overwrite")
    version = overwrite.version or latest
    exists = connection.execute(
        "SELECT 1 FROM files WHERE file_id = ? AND file_version = ?", (new.file_id, version)
    ).fetchone()
    if not exists:
        raise Refusal(f"Invalid parameter: file_version={version} doesn't exist for file_id={new.file_id}")
    return version


def _free_name(connection: sqlite3.Connection, name: str, file_id: str, disk_id: str) -> str:
    """`name` on its disk, or a variant of it if a file has it already: on the real server the one now overwrites the
    other's bytes."""
    taken = "SELECT 1 FROM files WHERE disk_id = ? AND file_name = ?"
    if not connection.execute(taken, (disk_id, name)).fetchone():
        return name
    directory, _, base_name = name.rpartition("/")
    return f"{directory}/{hashlib.sha256(file_id.encode()).hexdigest()[:32]}/{base_name}"


def _remove(connection: sqlite3.Connection, condition: str, *values: str | int) -> list[StoredFile]:
    rows = connection.execute(f"DELETE FROM files WHERE {condition} RETURNING *", values).fetchall()  # noqa: S608 - constants
    removed = [StoredFile(*row) for row in rows]
    if any(file.body_id is not None for file in removed):
        _give_back_space(connection)
    return removed


def _give_back_space(connection: sqlite3.Connection) -> None:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free > _FREE_PAGES:
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})").fetchall()


def _glob(pattern: str) -> str:
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(special.get(character, character) for character in pattern)
