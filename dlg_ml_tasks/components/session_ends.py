"""Sees to it that a session's run in MLflow ends with the session, whoever submitted it and whether or not anybody follows it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dlg.ddap_protocol import AppDROPStates, DROPStates
from dlg.manager.session import SessionStates

logger = logging.getLogger("dlg.dlg_ml_tasks")

_LOOK_EVERY = 1.0
_RETRY_AFTER = 5.0
_RETRY_AT_LEAST_EVERY = 300.0

_UNFINISHED = (DROPStates.INITIALIZED, DROPStates.WRITING)
_SUCCEEDED = (DROPStates.COMPLETED, DROPStates.EXPIRED, DROPStates.DELETED, DROPStates.SKIPPED)


@dataclass
class _Pending:
    """A status that MLflow could not be told yet."""

    status: str
    due: float
    delay: float = _RETRY_AFTER


class SessionEnds:
    """Watches the sessions of a node manager, and calls `settle` (see `process.settle_session`) once for each that has ended.

    The drops are watched and not the engine's events: a session whose listeners raised, or counted wrongly, gives no event and
    stays at running for ever. `on_end` is called with each session's name first.
    """

    def __init__(
        self,
        sessions: Callable[[], Mapping[str, Any]],
        settle: Callable[[str, str], bool],
        on_end: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._settle = settle
        self._on_end = on_end
        self._ended: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="session ends", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; what MLflow could not be told stays untold."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            self._look(self._sessions())
            self._tell()

    def _look(self, sessions: Mapping[str, Any]) -> None:
        self._ended &= set(sessions)
        for name, session in sessions.items():
            if name in self._ended:
                continue
            status = how_it_ended(session.status, session.drops.values())
            if status is not None:
                self._ended.add(name)
                self._on_end(name)
                if any(_records_runs(drop) for drop in session.drops.values()):
                    self._pending[name] = _Pending(status, due=time.monotonic())

    def _tell(self) -> None:
        for name, pending in list(self._pending.items()):
            if time.monotonic() < pending.due:
                continue
            if self._settle(name, pending.status):
                del self._pending[name]
                continue
            logger.warning("MLflow could not be told that session %s is %s; trying again", name, pending.status)
            pending.due = time.monotonic() + pending.delay
            pending.delay = min(2 * pending.delay, _RETRY_AT_LEAST_EVERY)


def how_it_ended(state: int, drops: Iterable[Any]) -> str | None:
    """FINISHED, FAILED or KILLED for a node's part of a session that has ended; None for one that has not.

    It is the last drops that decide: a graph may go on without a task that failed.
    """
    drops = list(drops)
    if state == SessionStates.CANCELLED:
        return "KILLED"
    if state < SessionStates.RUNNING or any(
        getattr(drop, "execStatus", None) == AppDROPStates.RUNNING for drop in drops
    ):
        return None
    if state == SessionStates.RUNNING and any(drop.status in _UNFINISHED for drop in drops):
        return None
    return "FINISHED" if all(drop.status in _SUCCEEDED for drop in drops if _is_last(drop)) else "FAILED"


def _is_last(drop: Any) -> bool:
    return not any(getattr(drop, links, ()) for links in ("outputs", "consumers", "streamingConsumers"))


def _records_runs(drop: Any) -> bool:
    from dlg_ml_tasks.components.apps import TaskApp

    return isinstance(drop, TaskApp)
