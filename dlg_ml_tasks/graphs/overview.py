"""What the engine says of all its sessions, in a line each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from dlg_ml_tasks.graphs.errors import EngineRefused
from dlg_ml_tasks.graphs.island import Island, NodeStates
from dlg_ml_tasks.graphs.snapshot import DeployedGraph
from dlg_ml_tasks.graphs.states import ENDED, ExecutionState, SessionState
from dlg_ml_tasks.tasks import BadInput

_NAME = re.compile(r"(?P<graph>.*?)(-|\d*_)(?P<date>\d{4}-?\d{2}-?\d{2})T(?P<time>\d{2}-?\d{2}-?\d{2})[.]?\d*$")
"""Names given by `dlg-ml run` (train-20261121T100302123456) and by the translator's page (train1_2026-11-21T10-03-02.123456)."""


@dataclass(frozen=True)
class SessionSummary:
    """One session of the engine.

    `state`: deploying, running, finished, failed, cancelled, or incomplete where one of its node managers does not answer.
    `failed` counts the tasks that failed and those that could not run because of them.
    """

    session: str
    state: str
    tasks: int
    done: int
    failed: int


def list_sessions(island: Island) -> list[SessionSummary]:
    """The sessions that the engine knows."""
    return [summarise(island, session, states) for session, states in island.sessions().items()]


def summarise(island: Island, session: str, states: NodeStates) -> SessionSummary:
    """One session in one line."""
    drops = {}
    if min(states.states.values()) >= SessionState.RUNNING:
        try:
            drops = island.drop_states(session)
        except EngineRefused:
            drops = {}  # removed in this moment
    executions = Counter(drop["execStatus"] for drop in drops.values() if "execStatus" in drop)
    state = _state(states)
    if state == "failed" and DeployedGraph(island.graph(session)).has_succeeded(drops):
        state = "finished"  # some task failed, and those after it went on without
    return SessionSummary(
        session,
        state,
        tasks=executions.total(),
        done=executions[ExecutionState.FINISHED],
        failed=executions[ExecutionState.ERROR],
    )


def graph_and_start(session: str) -> tuple[str, datetime | None]:
    """The graph's name and when the session was named (UTC), as far as its own name tells."""
    match = _NAME.fullmatch(session)
    if match is None:
        return session, None
    digits = re.sub(r"\D", "", match["date"] + match["time"])
    try:
        return match["graph"], datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return match["graph"], None


def find_session(wanted: str, known: Iterator[str]) -> str:
    """The one session whose name is, begins with, or holds what was written. Raises BadInput if that is none or several."""
    names = sorted(set(known))
    for matches in (
        [name for name in names if name == wanted],
        [name for name in names if name.startswith(wanted)],
        [name for name in names if wanted in name],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise BadInput(
                f"{wanted!r} is short for {len(matches)} sessions: {', '.join(matches[-5:])}; write more of it"
            )
    raise BadInput(f"there is no session {wanted!r}; 'dlg-ml sessions list' shows those there are")


def _state(states: NodeStates) -> str:
    found = set(states.states.values())
    if not found <= set(ENDED):
        if states.silent:
            return "incomplete"
        return "running" if min(found) >= SessionState.RUNNING else "deploying"
    if SessionState.CANCELLED in found:
        return "cancelled"
    return "failed" if SessionState.FAILED in found else "finished"
