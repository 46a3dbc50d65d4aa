"""The SQLite database of the read model: its tables, and connections that can or cannot write."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Sequence
from pathlib import Path

# A database of another version is thrown away: everything in it can be read again.
VERSION = 1

_READERS = 4  # connections, each with a cache of its own; a query takes less than a thread's turn

_TABLES = """
CREATE TABLE about (tracking_uri TEXT, public TEXT);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, experiment TEXT, name TEXT, task TEXT, session TEXT, is_session INTEGER, status TEXT,
    start INTEGER, "end" INTEGER, model TEXT, document BLOB
);
-- With what the overview counts, so that it need not read the runs themselves.
CREATE INDEX runs_by_start ON runs (start, run_id, status, is_session);
CREATE INDEX runs_by_task ON runs (task, start, run_id);
CREATE INDEX runs_by_session ON runs (session, start, run_id);
CREATE INDEX runs_by_status ON runs (status, start, run_id, is_session);
CREATE INDEX runs_by_model ON runs (model, start) WHERE model != '';
CREATE TABLE seen (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
-- Where something went: nodes are run:ID, model:NAME/VERSION and file:SHA256; `owner` is what the edge was read from.
CREATE TABLE edges (owner TEXT, source TEXT, target TEXT, role TEXT, PRIMARY KEY (owner, source, target, role)) WITHOUT ROWID;
CREATE INDEX edges_by_source ON edges (source);
CREATE INDEX edges_by_target ON edges (target);
-- The raw files, items and pictures that a run's artifacts hold.
CREATE TABLE items (run_id TEXT, kind TEXT, name TEXT, sha256 TEXT, size INTEGER, detail TEXT,
    PRIMARY KEY (run_id, kind, name)) WITHOUT ROWID;
CREATE INDEX items_by_content ON items (sha256) WHERE sha256 != '';
CREATE TABLE read_items (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE models (name TEXT PRIMARY KEY, document TEXT);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE VIRTUAL TABLE names USING fts5 (text, kind UNINDEXED, target UNINDEXED, tokenize = 'trigram');
-- Which rows of names belong to a run, or to the models: a full-text table finds them by their text only.
CREATE TABLE named (owner TEXT, row INTEGER PRIMARY KEY);
CREATE INDEX named_by_owner ON named (owner);
"""


class Database:
    """One database file. `writer` is for the one thread that refreshes; every other thread uses `read`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.writer = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
        self.writer.execute("PRAGMA journal_mode = WAL")
        # A lost commit is read again from MLflow.
        self.writer.execute("PRAGMA synchronous = OFF")
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for _ in range(_READERS):
            self._readers.put(self._reader())

    def prepare(self, tracking_uri: str, public: str) -> bool:
        """Make the tables, unless they are there and hold what this server shows; returns whether they were there."""
        version = self.writer.execute("PRAGMA user_version").fetchone()[0]
        if version == VERSION and self.writer.execute("SELECT * FROM about").fetchone() == (tracking_uri, public):
            return True
        for kind, name in self.writer.execute(
            "SELECT type, name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'names_%'"
        ).fetchall():
            self.writer.execute(f'DROP {kind} IF EXISTS "{name}"')
        self.writer.executescript(_TABLES)
        self.writer.execute("INSERT INTO about VALUES (?, ?)", (tracking_uri, public))
        self.writer.execute(f"PRAGMA user_version = {VERSION}")
        return False

    def read(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """The rows of a query, on a connection that cannot write."""
        connection = self._readers.get()
        try:
            return connection.execute(sql, tuple(values)).fetchall()
        finally:
            self._readers.put(connection)

    def close(self) -> None:
        """Close all connections; nobody may read any more."""
        self.writer.close()
        for _ in range(_READERS):
            self._readers.get().close()

    def _reader(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None, timeout=5)
        connection.execute("PRAGMA query_only = ON")
        connection.row_factory = sqlite3.Row
        return connection
