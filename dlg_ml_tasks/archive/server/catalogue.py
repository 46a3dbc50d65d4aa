"""What the archive holds: one row per file version in an SQLite database, durable once a change is reported done."""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue

from .group_commit import GroupCommit
from .refusals import Refusal

_SCHEMA_VERSION = 1
# The primary key doubles as the index for exact names and for prefixes. Triggers keep the volume's totals, because
# every archive reply reports them and counting a million rows for each would be absurd.
_SCHEMA = """
CREATE TABLE files (
    file_id TEXT NOT NULL,
    file_version INTEGER NOT NULL,
    file_name TEXT NOT NULL UNIQUE,
    format TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    checksum TEXT,
    checksum_plugin TEXT,
    ingestion_date TEXT NOT NULL,
    io_time REAL NOT NULL,
    object TEXT NOT NULL UNIQUE,
    PRIMARY KEY (file_id, file_version)
) WITHOUT ROWID;
CREATE INDEX files_by_date ON files (ingestion_date);
CREATE TABLE volume (
    disk_id TEXT NOT NULL,
    installation_date TEXT NOT NULL,
    number_of_files INTEGER NOT NULL,
    bytes_stored INTEGER NOT NULL
);
CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
    UPDATE volume SET number_of_files = number_of_files + 1, bytes_stored = bytes_stored + NEW.file_size;
END;
CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
    UPDATE volume SET number_of_files = number_of_files - 1, bytes_stored = bytes_stored - OLD.file_size;
END;
"""
_COLUMNS = (
    "file_id, file_version, file_name, format, file_size, checksum, checksum_plugin, ingestion_date, io_time, object"
)


def timestamp(moment: datetime | None = None) -> str:
    """A date as NGAS writes it: UTC, milliseconds, no zone."""
    return (moment or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


@dataclass(frozen=True)
class NewFile:
    """A file whose bytes are safe on disk and whose version is still to be given.

    `base_name` is the last part of the name NGAS would give it on disk; `io_time` is in seconds; `object` is the place
    of its bytes; `checksum` is a decimal, None (as `checksum_plugin`) for a file stored without one.
    """

    file_id: str
    base_name: str
    format: str
    file_size: int
    checksum: str | None
    checksum_plugin: str | None
    io_time: float
    object: str


@dataclass(frozen=True)
class StoredFile:
    """One version of a file; the fields are the columns of NGAS's file table, and `object` is the place of its bytes."""

    file_id: str
    file_version: int
    file_name: str
    format: str
    file_size: int
    checksum: str | None
    checksum_plugin: str | None
    ingestion_date: str
    io_time: float
    object: str


@dataclass(frozen=True)
class Volume:
    """The server's only disk: its identity and its totals."""

    disk_id: str
    installation_date: str
    number_of_files: int
    bytes_stored: int


@dataclass(frozen=True)
class Overwrite:
    """Replace a version in place instead of adding one: the given version, or the latest for None."""

    version: int | None


class Catalogue:
    """The rows of the archive. Reading methods may be called from any thread; changes return a Future."""

    def __init__(self, path: Path, path_prefix: str = "EmbeddedArchive") -> None:
        """Open or create the database file `path`. Raises sqlite3.Error if it is not one, or of another version."""
        self._path = path
        self._path_prefix = path_prefix
        self._idle_readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        writer = self._connect()
        try:
            _prepare(writer, path)
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

    def register(self, new: NewFile, overwrite: Overwrite | None = None) -> Future[tuple[StoredFile, str | None]]:
        """Add a file under its next version, or replace one; gives the row and the object it replaced, if any.

        Two clients that archive one id at once get two versions, because the number is chosen in the transaction.
        """

        def change(connection: sqlite3.Connection) -> tuple[StoredFile, str | None]:
            replaced = _remove(connection, new.file_id, _version_to_replace(connection, new, overwrite))
            version = replaced.file_version if replaced else _latest_version(connection, new.file_id) + 1
            stored = self._row(connection, new, version)
            connection.execute(
                f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                astuple(stored),
            )
            return stored, replaced.object if replaced else None

        return self._writer.submit(change)

    def discard(self, file_id: str, version: int) -> Future[StoredFile | None]:
        """Forget one version; gives its row, or None if there was none."""
        return self._writer.submit(lambda connection: _remove(connection, file_id, version))

    def find(self, file_id: str, version: int | None = None) -> StoredFile | None:
        """One version of a file, the latest for None."""
        if version is None:
            rows = self._select("WHERE file_id = ? ORDER BY file_version DESC LIMIT 1", file_id)
        else:
            rows = self._select("WHERE file_id = ? AND file_version = ?", file_id, version)
        return rows[0] if rows else None

    def like(self, pattern: str) -> list[StoredFile]:
        """Every version of the files whose id matches the SQL LIKE `pattern` (`%` and `_`, no escape).

        Case-sensitive, as NGAS is on PostgreSQL; on SQLite it is not. That lets SQLite look a prefix up in the index
        (GLOB is LIKE with other wildcards and an index) where the real server reads the whole table.
        """
        return self._select("WHERE file_id GLOB ?", _glob(pattern))

    def between(self, start: str, end: str) -> list[StoredFile]:
        """The files ingested between two dates, both included."""
        return self._select("WHERE ingestion_date BETWEEN ? AND ?", start, end)

    def recent(self, count: int) -> list[StoredFile]:
        """The newest `count` files, newest first."""
        return self._select("ORDER BY ingestion_date DESC LIMIT ?", count)

    def objects(self) -> set[str]:
        """The objects all rows name."""
        with self._reading() as connection:
            return {name for (name,) in connection.execute("SELECT object FROM files")}

    def volume(self) -> Volume:
        """The disk's identity and totals."""
        with self._reading() as connection:
            return Volume(*connection.execute("SELECT * FROM volume").fetchone())

    def _row(self, connection: sqlite3.Connection, new: NewFile, version: int) -> StoredFile:
        now = timestamp()
        directory = f"{self._path_prefix}/{now[:10]}/{version}"
        name = f"{directory}/{new.base_name}"
        if connection.execute("SELECT 1 FROM files WHERE file_name = ?", (name,)).fetchone():
            # On the real server this file would now overwrite the other's bytes.
            name = f"{directory}/{hashlib.sha256(new.file_id.encode()).hexdigest()[:32]}/{new.base_name}"
        return StoredFile(
            new.file_id,
            version,
            name,
            new.format,
            new.file_size,
            new.checksum,
            new.checksum_plugin,
            now,
            new.io_time,
            new.object,
        )

    def _select(self, condition: str, *values: str | int) -> list[StoredFile]:
        with self._reading() as connection:
            # `condition` is always one of this module's constants.
            return [StoredFile(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM files {condition}", values)]  # noqa: S608

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle_readers.get_nowait()
        except Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle_readers.put(connection)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == _SCHEMA_VERSION:
        return
    if version != 0:
        raise sqlite3.DatabaseError(f"{path} has version {version}; this server reads version {_SCHEMA_VERSION}")
    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION};")
    connection.execute("INSERT INTO volume VALUES (?, ?, 0, 0)", (uuid.uuid4().hex, timestamp()))
    connection.execute("COMMIT")


def _latest_version(connection: sqlite3.Connection, file_id: str) -> int:
    (latest,) = connection.execute("SELECT max(file_version) FROM files WHERE file_id = ?", (file_id,)).fetchone()
    return latest or 0


def _version_to_replace(connection: sqlite3.Connection, new: NewFile, overwrite: Overwrite | None) -> int | None:
    if overwrite is None:
        return None
    latest = _latest_version(connection, new.file_id)
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


def _remove(connection: sqlite3.Connection, file_id: str, version: int | None) -> StoredFile | None:
    if version is None:
        return None
    row = connection.execute(
        f"DELETE FROM files WHERE file_id = ? AND file_version = ? RETURNING {_COLUMNS}",  # noqa: S608 - a constant
        (file_id, version),
    ).fetchone()
    return StoredFile(*row) if row else None


def _glob(pattern: str) -> str:
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(special.get(character, character) for character in pattern)
