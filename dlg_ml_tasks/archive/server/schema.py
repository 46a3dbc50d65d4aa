"""The tables of the catalogue, and the way from an older version of them to this one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .command_tables import COMMAND_TABLES, DELIVERY_TRIGGER

VERSION = 2

# The primary key doubles as the index for exact names and for prefixes. Triggers keep the disks' totals, because every
# archive reply reports them and counting a million rows for each would be absurd. The number of a body is never used
# again (AUTOINCREMENT), so that a row read once names the same bytes for ever or none.
_FILES = """
CREATE TABLE disks (
    disk_id TEXT PRIMARY KEY,
    slot_id TEXT NOT NULL UNIQUE,
    installation_date TEXT NOT NULL,
    number_of_files INTEGER NOT NULL,
    bytes_stored INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE bodies (body_id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE files (
    file_id TEXT NOT NULL,
    file_version INTEGER NOT NULL,
    disk_id TEXT NOT NULL,
    file_name TEXT NOT NULL,
    format TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    checksum TEXT,
    checksum_plugin TEXT,
    ingestion_date TEXT NOT NULL,
    io_time REAL NOT NULL,
    container_id TEXT,
    object TEXT,
    body_id INTEGER,
    PRIMARY KEY (file_id, file_version, disk_id),
    UNIQUE (disk_id, file_name),
    CHECK ((object IS NULL) <> (body_id IS NULL))
) WITHOUT ROWID;
CREATE INDEX files_by_date ON files (ingestion_date);
CREATE INDEX files_by_container ON files (container_id) WHERE container_id IS NOT NULL;
CREATE UNIQUE INDEX files_by_object ON files (object) WHERE object IS NOT NULL;
CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
    UPDATE disks SET number_of_files = number_of_files + 1, bytes_stored = bytes_stored + NEW.file_size
    WHERE disk_id = NEW.disk_id;
END;
CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
    UPDATE disks SET number_of_files = number_of_files - 1, bytes_stored = bytes_stored - OLD.file_size
    WHERE disk_id = OLD.disk_id;
    DELETE FROM bodies WHERE body_id = OLD.body_id;
END;
"""
_SCHEMA = f"{_FILES}{COMMAND_TABLES}{DELIVERY_TRIGGER}"

# Version 1 had one disk and kept every file as an object.
_FROM_VERSION_1 = f"""
ALTER TABLE files RENAME TO files_1;
ALTER TABLE volume RENAME TO volume_1;
DROP INDEX files_by_date;
DROP TRIGGER file_added;
DROP TRIGGER file_removed;
{_SCHEMA}
INSERT INTO disks SELECT disk_id, 'volume1', installation_date, 0, 0 FROM volume_1;
INSERT INTO files
SELECT file_id, file_version, volume_1.disk_id, file_name, format, file_size, checksum, checksum_plugin,
    ingestion_date, io_time, NULL, object, NULL
FROM files_1, volume_1;
DROP TABLE files_1;
DROP TABLE volume_1;
"""  # noqa: S608 - constants


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty database, or bring those of an older version up to date, whole or not at all.

    Raises sqlite3.Error if `path` is no database, or one of a later version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise sqlite3.DatabaseError(f"{path} has version {version}; this server reads versions up to {VERSION}")
    if version == 0:
        # Before the first table, or it takes a VACUUM. Without it the space of discarded files is never given back.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    if version == VERSION:
        return
    steps = _SCHEMA if version == 0 else _FROM_VERSION_1
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT")
    if version == 1:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
