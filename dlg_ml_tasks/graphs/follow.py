"""Follows a session of the engine until it has ended, and says what became of each task.

The engine's own waiting does not end when a session fails, and its session state can stay at running for ever (a listener that
raised, a count that was not thread safe, a node that died). So the drops are watched; a session in which nothing runs and nothing
changes is over, and so is one of whose node managers one died.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlg_ml_tasks.graphs.errors import EngineRefused, EngineUnreachable
from dlg_ml_tasks.graphs.island import Island, NodeStates
from dlg_ml_tasks.graphs.snapshot import DeployedGraph, Enrichment, TaskSnapshot
from dlg_ml_tasks.graphs.states import ENDED, ExecutionState, SessionState

_MOST_ERRORS = 20
"""Tasks whose error is asked for: each costs a call to every node, and nobody reads more."""

_MOST_TRIES = 5
"""How often a failed task is asked for an error that it has not logged."""

_PART_OF_TIME = 0.2
"""Share of the time that is spent asking: thousands of drops take the engine a second to describe."""


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
    cancelled: bool = False
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
    on_silence: Callable[[float, str], None] = lambda seconds, reason: None,
    enrich: Callable[[str], Mapping[str, Enrichment]] = lambda _: {},
    interval: float = 0.25,
    unreachable_after: float = 30.0,
    silent_after: float = 15.0,
    stuck_after: float = 30.0,
) -> SessionResult:
    """Watch a session until it has ended; always returns or raises.

    `on_snapshot` gets the state of all tasks every `interval` seconds (more rarely in graphs of thousands of drops), `on_silence`
    for how many seconds the island manager has not answered, and why, each time that it is asked again; `enrich` is asked for what
    else is known of the session's tasks, by node name. A session has failed if nothing runs and nothing has changed
    for `stuck_after` seconds, or if a node manager that holds a part of it forgot it or has not answered for `silent_after`
    seconds: what runs on the other nodes is then cancelled.
    Raises EngineUnreachable if the island manager has not answered for `unreachable_after` seconds, EngineRefused if the engine
    does not know the session.
    """
    watch = _Watch(island, session, unreachable_after, silent_after, on_silence)
    stopwatch = _Stopwatch()
    changed, before = time.monotonic(), None
    while True:
        asked = time.monotonic()
        seen = watch.look()
        tasks = _add_known(stopwatch.time(watch.tasks(seen)), enrich(session))
        on_snapshot(tasks)
        if seen != before:
            changed, before = time.monotonic(), seen
        stuck = time.monotonic() - changed > stuck_after
        if watch.has_ended(seen) or (stuck and not seen.runs):
            return watch.result(seen, tasks)
        asking = time.monotonic() - asked - watch.asked_once
        _wait(watch, seen, max(interval, asking * (1 / _PART_OF_TIME - 1)), interval)


def _wait(watch: _Watch, seen: _Seen, seconds: float, interval: float) -> None:
    """Wait until it is time to look again, or until the nodes say, for the first time, that the session has ended: to ask for that
    costs little.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(interval, left))
        if left > interval and not _have_ended(seen.sessions) and watch.is_told_ended():
            return


def observe(
    island: Island, session: str, *, enrich: Callable[[str], Mapping[str, Enrichment]] = lambda _: {}
) -> tuple[tuple[TaskSnapshot, ...], SessionResult | None]:
    """The tasks of a session at this moment, and its result if it has ended. Raises as `follow` does, without waiting."""
    watch = _Watch(island, session, unreachable_after=0, silent_after=0)
    seen = watch.look()
    tasks = _add_known(watch.tasks(seen), enrich(session))
    return tasks, watch.result(seen, tasks) if watch.has_ended(seen) else None


def cancel(island: Island, session: str) -> None:
    """Cancel a session; its running tasks are stopped within seconds. A session that has ended stays as it is."""

    def runs() -> bool:
        return SessionState.RUNNING in island.session_states(session).states.values()

    if runs():
        try:
            island.cancel(session)
        except EngineRefused:
            # It also complains of nodes whose part has ended, and cancels the others.
            if runs():
                raise


@dataclass(frozen=True)
class _Seen:
    """What the engine said at one moment. `lost` are the node managers whose part of the session is gone."""

    sessions: Mapping[str, int]
    drops: Mapping[str, Mapping[str, int]]
    lost: frozenset[str]

    @property
    def runs(self) -> bool:
        return any(each.get("execStatus") == ExecutionState.RUNNING for each in self.drops.values())


class _Watch:
    """Asks the engine about one session, and judges what it says."""

    def __init__(
        self,
        island: Island,
        session: str,
        unreachable_after: float,
        silent_after: float,
        on_silence: Callable[[float, str], None] = lambda seconds, reason: None,
    ) -> None:
        self._island = island
        self._session = session
        self._unreachable_after = unreachable_after
        self._silent_after = silent_after
        self._on_silence = on_silence
        self._started = time.monotonic()
        self._answered = time.monotonic()
        self._heard: dict[str, float] = {}
        self._graph: DeployedGraph | None = None
        self._hosts: frozenset[str] = frozenset()
        self._drops: dict[str, Mapping[str, int]] = {}
        self._given_up = False
        self.asked_once = 0.0
        """Seconds of the last look that no other one will take: for the graph."""
        self._errors: dict[str, str] = {}
        self._asked: Counter[str] = Counter()

    def look(self) -> _Seen:
        silent = 0.0
        while True:
            try:
                seen = self._look()
            except EngineUnreachable as error:
                if time.monotonic() - self._answered > self._unreachable_after:
                    raise
                self._on_silence(silent, str(error))
                time.sleep(1)
                silent = time.monotonic() - self._answered
            else:
                self._answered = time.monotonic()
                return seen

    def _look(self) -> _Seen:
        states = self._island.session_states(self._session)
        lost = self._lost(states)
        self.asked_once = 0.0
        if self._graph is None and self._is_deployed(states):
            asked = time.monotonic()
            self._graph = DeployedGraph(self._island.graph(self._session))
            self.asked_once = time.monotonic() - asked
            # Of a node that was silent already the graph tells nothing; it must be taken to hold a part.
            self._hosts = self._graph.hosts | states.silent
            lost = self._lost(states)
        if lost:
            self._give_up()
            # What ran on a lost node runs no more; the rest of what it said still holds.
            self._drops = {oid: _stopped(each) for oid, each in self._drops.items()}
        parts = {node: state for node, state in states.states.items() if node not in lost}
        if parts and all(state >= SessionState.RUNNING for state in parts.values()):
            self._drops |= self._island.drop_states(self._session)
        return _Seen(parts, dict(self._drops), lost)

    def is_told_ended(self) -> bool:
        """Whether the nodes say that the session has ended; if they do not, it may have all the same."""
        try:
            states = self._island.session_states(self._session).states
        except EngineUnreachable:
            return False
        return bool(states) and _have_ended(states)

    def _is_deployed(self, states: NodeStates) -> bool:
        if states.states:
            return min(states.states.values()) >= SessionState.DEPLOYING
        if states.silent:
            silent = ", ".join(sorted(states.silent))
            raise EngineUnreachable(f"the node managers {silent} do not answer; start them again (dlg-ml up)")
        raise EngineRefused(
            f"the engine does not know session {self._session!r}; it forgets its sessions when it is started again: submit the "
            "graph again, and finished tasks are reused"
        )

    def _lost(self, states: NodeStates) -> frozenset[str]:
        """The nodes that hold a part of the session and have forgotten it, or have been silent for too long."""
        now = time.monotonic()
        self._heard |= dict.fromkeys((*states.states, *states.forgotten), now)
        silent = {node for node in states.silent if now - self._heard.setdefault(node, now) >= self._silent_after}
        return frozenset((states.forgotten | silent) & self._hosts)

    def _give_up(self) -> None:
        """Cancel what is left: without the lost part the graph cannot be completed, and its tasks would wait for ever."""
        if not self._given_up:
            self._given_up = True
            cancel(self._island, self._session)

    def tasks(self, seen: _Seen) -> tuple[TaskSnapshot, ...]:
        """The applications of the graph, in its order, those that failed with the reason."""
        tasks = self._graph.tasks(seen.drops, seen.lost) if self._graph else ()
        return tuple(
            replace(task, error=self._error(task, seen.lost)) if task.state == "failed" else task for task in tasks
        )

    def has_ended(self, seen: _Seen) -> bool:
        """Whether nothing runs, and each node says so or nothing is left to run (nodes may disagree: one failed, one finished)."""
        if self._graph is None or seen.runs:
            return False
        if seen.lost and not seen.sessions:
            return True
        if not seen.drops:
            return False
        return _have_ended(seen.sessions) or self._graph.is_final(seen.drops, seen.lost)

    def result(self, seen: _Seen, tasks: tuple[TaskSnapshot, ...]) -> SessionResult:
        ok = not seen.lost and self._graph is not None and self._graph.has_succeeded(seen.drops)
        cancelled = (
            SessionState.CANCELLED in seen.sessions.values() and not any(task.error for task in tasks) and not seen.lost
        )
        return SessionResult(
            session=self._session,
            ok=ok,
            reason="" if ok else self._reason(seen, tasks, cancelled),
            tasks=tasks,
            seconds=time.monotonic() - self._started,
            cancelled=cancelled and not ok,
            logs={} if ok else self._log_files(tasks, seen.lost),
        )

    def _reason(self, seen: _Seen, tasks: tuple[TaskSnapshot, ...], cancelled: bool) -> str:
        if seen.lost:
            return (
                f"the node manager {', '.join(sorted(seen.lost))} went away with its part of the session; start it again "
                "(dlg-ml up) and submit the graph again: finished tasks are reused"
            )
        causes = [f"{task.node}: {task.error}" for task in tasks if task.error]
        if causes:
            shown = causes[:5]
            return "; ".join([*shown, f"and {len(causes) - len(shown)} more"] if causes[5:] else shown)
        if cancelled:
            return "cancelled"
        failed = [task.node for task in tasks if task.state == "failed"]
        if failed:
            return f"{', '.join(failed)} failed; the engine kept no reason, look into the log files"
        unfinished = [task.node for task in tasks if task.state == "waiting"]
        return f"the engine has stopped working on it: {', '.join(unfinished) or 'some drops'} never ran; look into the log files"

    def _error(self, task: TaskSnapshot, lost: Set[str]) -> str:
        """The last line of the last error that a failed task logged; empty where it is not known."""
        if task.host in lost:
            return f"it ran on the node manager {task.host}, which went away"
        if task.oid not in self._asked and len(self._asked) >= _MOST_ERRORS:
            return "failed; its MLflow run says why"
        if not self._errors.get(task.oid) and self._asked[task.oid] < _MOST_TRIES:
            self._asked[task.oid] += 1
            self._errors[task.oid] = self._last_error(task)
        return self._errors.get(task.oid, "")

    def _last_error(self, task: TaskSnapshot) -> str:
        try:
            records = self._island.drop_logs(self._session, task.oid)
        except (EngineUnreachable, EngineRefused):
            return ""
        errors = [record for record in records if record.get("Level") in ("ERROR", "CRITICAL")]
        return _last_line(str(errors[-1].get("Message", ""))) if errors else ""

    def _log_files(self, tasks: Iterable[TaskSnapshot], lost: Set[str]) -> dict[str, str]:
        """The session's log on the nodes where a task failed; on all of its nodes where none did."""
        wanted = {task.host for task in tasks if task.error} or (self._graph.hosts if self._graph else frozenset())
        found = {}
        for node in sorted(wanted - lost):
            try:
                found[node] = _log_file(self._island.session_folder(self._session, node), self._session)
            except (EngineUnreachable, EngineRefused):
                continue  # the result stands without it
        return found


def _have_ended(parts: Mapping[str, int]) -> bool:
    """Whether all nodes that have a part of a session say that it has ended."""
    return all(state in ENDED for state in parts.values())


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
    return tuple(task.with_known(known.get(task.node)) for task in tasks)


def _stopped(drop: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**drop, "execStatus": ExecutionState.ERROR} if drop.get("execStatus") == ExecutionState.RUNNING else drop


def _log_file(folder: str, session: str) -> str:
    """The session's log in its folder on a node; a pattern for one elsewhere, since the name holds an address of its host."""
    pattern = f"dlg_*_{session}.log"
    return str(next(Path(folder).glob(pattern), Path(folder) / pattern))


def _last_line(message: str) -> str:
    """The last line of a record's text, without its markup and without the exception's import path."""
    lines = [line.strip() for line in re.sub(r"</?pre>", "", message).splitlines() if line.strip()]
    return re.sub(r"^dlg_ml_tasks(\.\w+)+: ", "", lines[-1]) if lines else ""
