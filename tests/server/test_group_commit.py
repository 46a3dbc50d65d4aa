"""Changes of the catalogue are committed together, and each is whole or undone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlg_ml_tasks.archive.server.group_commit import GroupCommit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite"


@pytest.fixture
def commits(path: Path) -> Iterator[GroupCommit]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE numbers (value INTEGER UNIQUE)")
    writer = GroupCommit(connection)
    yield writer
    writer.close()


def numbers(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT value FROM numbers ORDER BY value").fetchall()
    connection.close()
    return [value for (value,) in rows]


def insert(value: int):
    return lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (value,)).rowcount


def test_a_change_is_visible_to_others_when_its_future_is_done(commits, path):
    assert commits.submit(insert(1)).result() == 1
    assert numbers(path) == [1]


def test_a_failed_change_is_undone_and_spares_the_others_in_its_transaction(commits, path):
    started, go_on = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        started.set()
        go_on.wait()

    def insert_and_fail(connection: sqlite3.Connection) -> None:
        insert(3)(connection)
        raise LookupError("no")

    held = commits.submit(hold)
    started.wait()
    first, failed, twice, last = (commits.submit(c) for c in (insert(1), insert_and_fail, insert(1), insert(2)))
    go_on.set()
    held.result()
    assert (first.result(), last.result()) == (1, 1)
    with pytest.raises(LookupError):
        failed.result()
    with pytest.raises(sqlite3.IntegrityError):
        twice.result()
    assert numbers(path) == [1, 2]


def test_changes_that_wait_share_a_commit(path):
    statements: list[str] = []
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE numbers (value INTEGER UNIQUE)")
    connection.set_trace_callback(statements.append)
    writer = GroupCommit(connection)
    started, go_on = threading.Event(), threading.Event()
    writer.submit(lambda _: (started.set(), go_on.wait()))
    started.wait()
    waiting = [writer.submit(insert(value)) for value in range(10)]
    go_on.set()
    for change in waiting:
        change.result()
    writer.close()
    assert statements.count("COMMIT") == 2


def test_a_commit_that_fails_fails_all_its_changes_and_the_next_one_works(commits, path):
    def deferred_violation(connection: sqlite3.Connection) -> None:
        # A foreign key that is checked only at the commit.
        connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        connection.execute("INSERT INTO child VALUES (1)")

    started, go_on = threading.Event(), threading.Event()
    commits._connection.execute("PRAGMA foreign_keys = ON")
    held = commits.submit(lambda _: (started.set(), go_on.wait()))
    started.wait()
    failing = [commits.submit(insert(1)), commits.submit(deferred_violation)]
    go_on.set()
    held.result()
    for change in failing:
        with pytest.raises(sqlite3.IntegrityError):
            change.result()
    assert commits.submit(insert(2)).result() == 1
    assert numbers(path) == [2]


def test_closing_commits_what_waits(path):
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE numbers (value INTEGER UNIQUE)")
    writer = GroupCommit(connection)
    waiting = [writer.submit(insert(value)) for value in range(5)]
    writer.close()
    assert all(change.done() for change in waiting)
    assert numbers(path) == [0, 1, 2, 3, 4]
