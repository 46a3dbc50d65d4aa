"""Subscriptions and what is still to be delivered to them, in the catalogue.

The functions that change something are for a transaction of the catalogue.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass

_COLUMNS = "subscr_id, url, priority, start_date, concurrent_threads, last_file_ingestion_date"


# With `due`: the version may have been overwritten, and queued again, since the delivery was read.
_SAME = "subscr_id = ? AND file_id = ? AND file_version = ? AND due = ?"


@dataclass(frozen=True)
class Subscription:
    """Somebody who gets every file ingested from `start_date` on, sent to `url`, `concurrent_threads` at a time."""

    subscr_id: str
    url: str
    priority: int
    start_date: str
    concurrent_threads: int
    last_file_ingestion_date: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One file version that a subscriber has not got yet, after so many attempts.

    `due` is when to try (again), in seconds of the Unix epoch.
    """

    subscr_id: str
    file_id: str
    file_version: int
    attempts: int
    due: float


def subscriptions(connection: sqlite3.Connection) -> list[Subscription]:
    """All of them, the most urgent first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM subscriptions ORDER BY priority, subscr_id")  # noqa: S608
    return [Subscription(*row) for row in rows]


def subscribe(connection: sqlite3.Connection, new: Subscription) -> Subscription | None:
    """Add a subscription and queue the files it is late for; gives the one that has the id already, which stays."""
    for existing in subscriptions(connection):
        if existing.subscr_id == new.subscr_id:
            return existing
    connection.execute("INSERT INTO subscriptions VALUES (?, ?, ?, ?, ?, ?)", astuple(new))
    connection.execute(
        "INSERT OR IGNORE INTO deliveries SELECT ?, file_id, file_version, 0, 0 FROM files WHERE ingestion_date >= ?",
        (new.subscr_id, new.start_date),
    )
    return None


def unsubscribe(connection: sqlite3.Connection, subscr_id: str) -> bool:
    """Forget a subscription and what it still waits for; gives whether there was one."""
    connection.execute("DELETE FROM deliveries WHERE subscr_id = ?", (subscr_id,))
    return connection.execute("DELETE FROM subscriptions WHERE subscr_id = ?", (subscr_id,)).rowcount > 0


def due(connection: sqlite3.Connection, subscr_id: str, now: float, count: int) -> list[Delivery]:
    """At most `count` deliveries to try now, the longest waiting first. `now` is in seconds of the Unix epoch."""
    rows = connection.execute(
        "SELECT subscr_id, file_id, file_version, attempts, due FROM deliveries "
        "WHERE subscr_id = ? AND due <= ? ORDER BY due LIMIT ?",
        (subscr_id, now, count),
    )
    return [Delivery(*row) for row in rows]


def next_due(connection: sqlite3.Connection, subscr_id: str) -> float | None:
    """When there will be something to try, in seconds of the Unix epoch; None if nothing waits."""
    (moment,) = connection.execute("SELECT min(due) FROM deliveries WHERE subscr_id = ?", (subscr_id,)).fetchone()
    return None if moment is None else float(moment)


def delivered(connection: sqlite3.Connection, delivery: Delivery, ingestion_date: str | None) -> None:
    """Strike a delivery off; `ingestion_date` is None for a file that is not in the archive any more."""
    connection.execute(f"DELETE FROM deliveries WHERE {_SAME}", _key(delivery))  # noqa: S608 - a constant
    if ingestion_date is not None:
        connection.execute(
            "UPDATE subscriptions SET last_file_ingestion_date = max(coalesce(last_file_ingestion_date, ''), ?) "
            "WHERE subscr_id = ?",
            (ingestion_date, delivery.subscr_id),
        )


def postpone(connection: sqlite3.Connection, delivery: Delivery, due: float) -> None:
    """Count a failed attempt; the next is not before `due`, in seconds of the Unix epoch."""
    connection.execute(
        f"UPDATE deliveries SET attempts = attempts + 1, due = ? WHERE {_SAME}",  # noqa: S608 - a constant
        (due, *_key(delivery)),
    )


def _key(delivery: Delivery) -> tuple[str, str, int, float]:
    return delivery.subscr_id, delivery.file_id, delivery.file_version, delivery.due
