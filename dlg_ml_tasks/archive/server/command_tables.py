"""The catalogue's tables for containers and subscriptions: their SQL only, so that the catalogue needs no command."""

from __future__ import annotations

COMMAND_TABLES = """
CREATE TABLE containers (
    container_id TEXT PRIMARY KEY,
    parent_container_id TEXT REFERENCES containers (container_id),
    container_name TEXT NOT NULL,
    ingestion_date TEXT,
    UNIQUE (parent_container_id, container_name)
) WITHOUT ROWID;
CREATE INDEX containers_by_name ON containers (container_name);
CREATE TABLE subscriptions (
    subscr_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    priority INTEGER NOT NULL,
    start_date TEXT NOT NULL,
    concurrent_threads INTEGER NOT NULL,
    last_file_ingestion_date TEXT
) WITHOUT ROWID;
CREATE TABLE deliveries (
    subscr_id TEXT NOT NULL REFERENCES subscriptions (subscr_id),
    file_id TEXT NOT NULL,
    file_version INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    PRIMARY KEY (subscr_id, file_id, file_version)
) WITHOUT ROWID;
CREATE INDEX deliveries_by_due ON deliveries (subscr_id, due);
"""
"""Sibling containers have distinct names, those without a parent need not (SQLite holds no two NULLs equal).
`ingestion_date` is when a container was closed. `due` is in seconds of the Unix epoch."""

DELIVERY_TRIGGER = """
CREATE TRIGGER file_to_deliver AFTER INSERT ON files
WHEN NOT EXISTS (
    SELECT 1 FROM files
    WHERE file_id = NEW.file_id AND file_version = NEW.file_version AND disk_id <> NEW.disk_id
) BEGIN
    INSERT OR REPLACE INTO deliveries
    SELECT subscr_id, NEW.file_id, NEW.file_version, 0, (julianday('now') - 2440587.5) * 86400
    FROM subscriptions WHERE start_date <= NEW.ingestion_date;
END;
"""
"""A file is queued for its subscribers in the transaction that makes it known, so that a crash forgets neither or both;
a further copy of a version is nothing new to them. A version overwritten before its delivery waits again, with
another `due`, by which a delivery of the old bytes that is under way is told from it."""
