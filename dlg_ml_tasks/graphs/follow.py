"""Follows a session of the engine until it has ended, and says what became of each task.

The engine's own waiting does not end when a session fails, and its session state can stay at running for ever (a listener that
raised, a count that was not thread safe). So the drops are watched, and a session in which nothing runs and nothing changes is
over, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.graphs.errors import EngineRefused, EngineUnreachable
from dlg_ml_tasks.graphs.island import Island

TaskState = Literal["waiting", "running", "reused", "finished", "failed", "skipped", "cancelled"]
Enrichment = Mapping[str, Any]
"""What is known of a task from elsewhere: run_id, progress, reused, seconds, metrics (all optional)."""


class DropState(IntEnum):
    """The engine's states of a drop."""

    INITIALIZED = 0
    WRITING = 1
    COMPLETED = 2
    ERROR = 3
    EXPIRED = 4
    DELETED = 5
    CANCELLED = 6
    SKIPPED = 7


class ExecutionState(IntEnum):
    """The engine's states of an application's execution."""

    NOT_RUN = 0
    RUNNING = 1
    FINISHED = 2
    ERROR = 3
    CANCELLED = 4
    SKIPPED = 5


class SessionState(IntEnum):
    """The engine's states of a session."""

    PRISTINE = 0
    BUILDING = 1
    DEPLOYING = 2
    RUNNING = 3
    FINISHED = 4
    CANCELLED = 5
    FAILED = 6


_ENDED = (SessionState.FINISHED, SessionState.CANCELLED, SessionState.FAILED)

_SUCCEEDED = (DropState.COMPLETED, DropState.EXPIRED, DropState.DELETED, DropState.SKIPPED)
"""A data drop that is expired or deleted was complete before."""

_TASK_STATES: Mapping[int, TaskState] = {
    ExecutionState.NOT_RUN: "waiting",
    ExecutionState.RUNNING: "running",
    ExecutionState.FINISHED: "finished",
    ExecutionState.ERROR: "failed",
    ExecutionState.CANCELLED: "cancelled",
    ExecutionState.SKIPPED: "skipped",
}


@dataclass(frozen=True)
class TaskSnapshot:
    """One task (or other application) of a session at one moment. `seconds` is how long it has run, or ran.

    `error` is the last line of what it raised. A task that could not run because one before it failed is skipped.
    """

    node: str
    task: str
    state: TaskState
    oid: str
    seconds: float = 0.0
    error: str = ""
    run_id: str = ""
    progress: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionResult:
    """How a session ended. `ok` only if every last drop of the graph was completed (or skipped by a branch).

    `reason` says in one line what went wrong; `logs` are the engine's log files of the session by node.
    """

    session: str
    ok: bool
    reason: str
    tasks: tuple[TaskSnapshot, ...]
    seconds: float
    logs: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[TaskSnapshot, ...]:
        """The tasks that failed by themselves."""
        return tuple(task for task in self.tasks if task.error)


def follow(
    island: Island,
    session: str,
    *,
    on_snapshot: Callable[[tuple[TaskSnapshot, ...]], None] = lambda _: None,
    enrich: Callable[[str], Mapping[str, Enrichment]] = lambda _: {},
    interval: float = 0.5,
    unreachable_after: float = 30.0,
    stuck_after: float = 30.0,
) -> SessionResult:
    """Watch a session until it has ended; always returns or raises.

    `on_snapshot` gets the state of all tasks every `interval` seconds; `enrich` is asked for what else is known of the session's
    tasks, by node name. A session in which nothing runs and nothing has changed for `stuck_after` seconds has failed.
    Raises EngineUnreachable if the engine has not answered for `unreachable_after` seconds, EngineRefused if it does not know the
    session.
    """
    watch = _Watch(island, session, unreachable_after)
    stopwatch = _Stopwatch()
    changed, before = time.monotonic(), None
    while True:
        seen = watch.look()
        tasks = _add_known(stopwatch.time(watch.tasks(seen)), enrich(session))
        on_snapshot(tasks)
        if seen != before:
            changed, before = time.monotonic(), seen
        stuck = time.monotonic() - changed > stuck_after
        if watch.has_ended(seen) or (stuck and not _runs(seen)):
            return watch.result(seen, tasks)
        time.sleep(interval)


def cancel(island: Island, session: str) -> None:
    """Cancel a session; its running tasks are stopped within seconds. A session that has ended stays as it is."""
    states = island.session_states(session).values()
    if any(state == SessionState.RUNNING for state in states):
        island.cancel(session)


@dataclass(frozen=True)
class _Seen:
    """What the engine said at one moment."""

    sessions: Mapping[str, int | None]
    drops: Mapping[str, Mapping[str, int]]


class _Watch:
    """Asks the engine about one session, and judges what it says."""

    def __init__(self, island: Island, session: str, unreachable_after: float) -> None:
        self._island = island
        self._session = session
        self._unreachable_after = unreachable_after
        self._started = time.monotonic()
        self._answered = time.monotonic()
        self._graph: dict[str, dict[str, Any]] = {}

    def look(self) -> _Seen:
        while True:
            try:
                sessions = self._island.session_states(self._session)
                self._require_known(sessions)
                self._graph = self._graph or self._island.graph(self._session)
                ready = all(state is not None and state >= SessionState.RUNNING for state in sessions.values())
                seen = _Seen(sessions, self._island.drop_states(self._session) if ready else {})
            except EngineUnreachable:
                if time.monotonic() - self._answered > self._unreachable_after:
                    raise
                time.sleep(1)
            else:
                self._answered = time.monotonic()
                return seen

    def _require_known(self, sessions: Mapping[str, int | None]) -> None:
        if not sessions or all(state is None for state in sessions.values()):
            raise EngineRefused(
                f"the engine does not know session {self._session!r}; it forgets its sessions when it is started again: submit the "
                "graph again, and finished tasks are reused"
            )

    def tasks(self, seen: _Seen) -> tuple[TaskSnapshot, ...]:
        """The applications of the graph, in its order."""
        return tuple(
            TaskSnapshot(
                node=str(drop.get("name", oid)),
                task=_task_name(drop),
                state=self._task_state(seen, oid),
                oid=oid,
            )
            for oid, drop in self._graph.items()
            if _is_application(drop)
        )

    def _task_state(self, seen: _Seen, oid: str) -> TaskState:
        drop = seen.drops.get(oid, {})
        if drop.get("status") == DropState.CANCELLED:
            return "cancelled"
        state = _TASK_STATES[drop.get("execStatus", ExecutionState.NOT_RUN)]
        if state == "failed" and any(
            seen.drops.get(each, {}).get("status") == DropState.ERROR for each in self._inputs(oid)
        ):
            return "skipped"  # the engine hands an error on to all that comes after it
        return state

    def _inputs(self, oid: str) -> Iterator[str]:
        for each in self._graph[oid].get("inputs", ()):
            yield from each if isinstance(each, dict) else [each]

    def has_ended(self, seen: _Seen) -> bool:
        """Whether nothing runs, and each node says so or nothing is left to run (nodes may disagree: one failed, one finished)."""
        if not seen.drops or _runs(seen):
            return False
        return all(state in _ENDED for state in seen.sessions.values()) or all(map(_is_final, seen.drops.values()))

    def result(self, seen: _Seen, tasks: tuple[TaskSnapshot, ...]) -> SessionResult:
        tasks = tuple(replace(task, error=self._error(task)) if task.state == "failed" else task for task in tasks)
        leaves = [seen.drops.get(oid, {}).get("status") for oid, drop in self._graph.items() if _is_leaf(drop)]
        ok = bool(leaves) and all(status in _SUCCEEDED for status in leaves)
        return SessionResult(
            session=self._session,
            ok=ok,
            reason="" if ok else self._reason(seen, tasks),
            tasks=tasks,
            seconds=time.monotonic() - self._started,
            logs={} if ok else self._log_files(),
        )

    def _reason(self, seen: _Seen, tasks: tuple[TaskSnapshot, ...]) -> str:
        causes = [f"{task.node}: {task.error}" for task in tasks if task.error]
        if causes:
            return "; ".join(causes)
        if any(state == SessionState.CANCELLED for state in seen.sessions.values()):
            return "cancelled"
        failed = [task.node for task in tasks if task.state == "failed"]
        if failed:
            return f"{', '.join(failed)} failed; the engine kept no reason, look into the log files"
        unfinished = [task.node for task in tasks if task.state == "waiting"]
        return f"the engine has stopped working on it: {', '.join(unfinished) or 'some drops'} never ran; look into the log files"

    def _error(self, task: TaskSnapshot) -> str:
        """The last line of the last error that a task logged; empty for one that never ran."""
        try:
            records = self._island.drop_logs(self._session, task.oid)
        except (EngineUnreachable, EngineRefused):
            return ""
        errors = [record for record in records if record.get("Level") in ("ERROR", "CRITICAL")]
        return _last_line(str(errors[-1].get("Message", ""))) if errors else ""

    def _log_files(self) -> dict[str, str]:
        try:
            folders = self._island.session_folders(self._session)
        except (EngineUnreachable, EngineRefused):
            return {}
        return {node: _log_file(Path(folder), self._session) for node, folder in folders.items()}


class _Stopwatch:
    """How long each task has been running, as seen from here."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def time(self, tasks: Iterable[TaskSnapshot]) -> tuple[TaskSnapshot, ...]:
        now = time.monotonic()
        timed = []
        for task in tasks:
            if task.state == "running":
                self._took[task.oid] = now - self._began.setdefault(task.oid, now)
            timed.append(replace(task, seconds=self._took.get(task.oid, 0.0)))
        return tuple(timed)


def _add_known(tasks: tuple[TaskSnapshot, ...], known: Mapping[str, Enrichment]) -> tuple[TaskSnapshot, ...]:
    def enriched(task: TaskSnapshot) -> TaskSnapshot:
        more = known.get(task.node)
        if not more:
            return task
        reused = bool(more.get("reused")) and task.state in ("running", "finished")
        return replace(
            task,
            state="reused" if reused else task.state,
            seconds=float(more.get("seconds", task.seconds)),
            run_id=str(more.get("run_id", "")),
            progress=str(more.get("progress", "")),
            metrics=dict(more.get("metrics", {})),
        )

    return tuple(map(enriched, tasks))


def _is_application(drop: Mapping[str, Any]) -> bool:
    return str(drop.get("categoryType", "")).lower() in ("application", "app")


def _is_leaf(drop: Mapping[str, Any]) -> bool:
    return not any(drop.get(link) for link in ("outputs", "consumers", "streamingConsumers"))


def _task_name(drop: Mapping[str, Any]) -> str:
    task = task_of(str(drop.get("dropclass", "")))
    return task.name if task else str(drop.get("dropclass", "")).rpartition(".")[2]


def _runs(seen: _Seen) -> bool:
    return any(each.get("execStatus") == ExecutionState.RUNNING for each in seen.drops.values())


def _is_final(state: Mapping[str, int]) -> bool:
    return state.get("status") not in (DropState.INITIALIZED, DropState.WRITING)


def _log_file(folder: Path, session: str) -> str:
    """The session's log in its folder on a node; the engine puts an address of its host into the name."""
    pattern = f"dlg_*_{session}.log"
    return str(next(folder.glob(pattern), folder / pattern))


def _last_line(message: str) -> str:
    """The last line of a record's text, without its markup and without the exception's import path."""
    lines = [line.strip() for line in re.sub(r"</?pre>", "", message).splitlines() if line.strip()]
    return re.sub(r"^dlg_ml_tasks(\.\w+)+: ", "", lines[-1]) if lines else ""
