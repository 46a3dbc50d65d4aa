"""One thread that owns the writing connection and commits all waiting changes together.

A durable commit costs a disk flush whatever its size. While one is being flushed the next changes gather, so eight
clients that archive small files share a flush instead of queueing for eight.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Change:
    apply: Callable[[sqlite3.Connection], Any]
    done: Future[Any]


class GroupCommit:
    """Runs changes one after another, each whole or not at all, and tells of success only after the commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take over `connection` (autocommit mode, `check_same_thread=False`); `close` closes it."""
        self._connection = connection
        self._waiting: SimpleQueue[_Change | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ngas-commit", daemon=True)
        self._thread.start()

    def submit(self, apply: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a change; the future has its result once it is on disk, or the exception that undid it."""
        done: Future[T] = Future()
        self._waiting.put(_Change(apply, done))
        return done

    def close(self) -> None:
        """Commit what is waiting, then stop the thread and close the connection."""
        self._waiting.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._gather()
            self._commit([change for change in batch if change.done.set_running_or_notify_cancel()])

    def _gather(self) -> tuple[list[_Change], bool]:
        batch: list[_Change] = []
        change = self._waiting.get()
        while change is not None:
            batch.append(change)
            try:
                change = self._waiting.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Change]) -> None:
        if not batch:
            return
        results: list[tuple[Future[Any], Any]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for change in batch:
                self._apply(change, results)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for change in batch:
                if not change.done.done():
                    change.done.set_exception(error)
            return
        for done, result in results:
            done.set_result(result)

    def _apply(self, change: _Change, results: list[tuple[Future[Any], Any]]) -> None:
        self._connection.execute("SAVEPOINT change")
        try:
            result = change.apply(self._connection)
        except Exception as error:
            # A full disk may have rolled the whole transaction back already, and its savepoints with it.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO change")
                self._connection.execute("RELEASE change")
                change.done.set_exception(error)
            else:
                raise sqlite3.OperationalError(str(error)) from error
        else:
            self._connection.execute("RELEASE change")
            results.append((change.done, result))
