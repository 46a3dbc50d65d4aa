"""When a session is over, and that MLflow hears of it once, however late it listens."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from dlg.ddap_protocol import AppDROPStates, DROPStates
from dlg.manager.session import SessionStates

from dlg_ml_tasks.components import session_ends
from dlg_ml_tasks.components.session_ends import SessionEnds, how_it_ended


@dataclass
class Drop:
    """What is looked at in a drop."""

    status: int
    execStatus: int | None = None  # noqa: N815  # the engine's name
    outputs: list[Any] = field(default_factory=list)
    consumers: list[Any] = field(default_factory=list)


DONE = Drop(DROPStates.COMPLETED)
BROKEN = Drop(DROPStates.ERROR)


@pytest.mark.parametrize(
    ("state", "drops", "ended"),
    [
        (SessionStates.BUILDING, [], None),
        (SessionStates.DEPLOYING, [DONE], None),
        (SessionStates.RUNNING, [Drop(DROPStates.INITIALIZED)], None),
        (SessionStates.FINISHED, [Drop(DROPStates.COMPLETED, AppDROPStates.RUNNING)], None),
        (SessionStates.FINISHED, [DONE], "FINISHED"),
        (SessionStates.FINISHED, [Drop(DROPStates.SKIPPED)], "FINISHED"),
        (SessionStates.FAILED, [DONE, BROKEN], "FAILED"),
        # Something failed that the last drop could do without.
        (SessionStates.FAILED, [Drop(DROPStates.ERROR, consumers=[DONE]), DONE], "FINISHED"),
        # The engine lost count and stays at running.
        (SessionStates.RUNNING, [DONE, BROKEN], "FAILED"),
        (SessionStates.RUNNING, [DONE], "FINISHED"),
        (SessionStates.CANCELLED, [DONE], "KILLED"),
        (SessionStates.FINISHED, [], "FINISHED"),
    ],
)
def test_the_last_drops_decide_how_a_session_ended(state: int, drops: list[Drop], ended: str | None) -> None:
    assert how_it_ended(state, drops) == ended


@dataclass
class Session:
    """What is looked at in a session."""

    status: int
    drops: dict[str, Any]


def test_mlflow_is_told_once_and_again_only_while_it_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_ends, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(session_ends, "_RETRY_AFTER", 0.01)
    monkeypatch.setattr(session_ends, "_records_runs", lambda drop: True)
    sessions = {"well": Session(SessionStates.FINISHED, {"a": DONE}), "runs": Session(SessionStates.RUNNING, {})}
    sessions["runs"].drops["a"] = Drop(DROPStates.INITIALIZED)
    told: list[tuple[str, str]] = []
    closed: list[str] = []
    thrice = threading.Event()

    def settle(session: str, status: str) -> bool:
        told.append((session, status))
        if len(told) == 3:
            thrice.set()
        return len(told) >= 3

    ends = SessionEnds(lambda: sessions, settle, closed.append)
    ends.start()
    try:
        assert thrice.wait(30)
        time.sleep(0.2)
    finally:
        ends.stop()
    assert told == [("well", "FINISHED")] * 3
    assert closed == ["well"]


def test_sessions_without_tasks_of_ours_are_none_of_mlflows_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_ends, "_LOOK_EVERY", 0.01)
    closed = threading.Event()
    told: list[str] = []
    sessions = {"other": Session(SessionStates.FINISHED, {"a": DONE})}
    ends = SessionEnds(lambda: sessions, lambda name, _: bool(told.append(name)), lambda _: closed.set())
    ends.start()
    try:
        assert closed.wait(30)
    finally:
        ends.stop()
    assert told == []
