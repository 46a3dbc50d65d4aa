"""The engine's log handlers, held apart from the root logger, in its own node manager."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.components.drop_logs import DropLogs

pytestmark = pytest.mark.integration


def _specification(session: str, count: int) -> list[dict[str, Any]]:
    """So many chains of an application and its output."""
    drops: list[dict[str, Any]] = []
    for number in range(count):
        app, data = f"{session}_a{number}_0", f"{session}_b{number}_0"
        drops += [
            {
                "oid": app,
                "name": f"hello {number}",
                "categoryType": "Application",
                "dropclass": "dlg.apps.simple.HelloWorldApp",
                "humanReadableKey": f"hello/{number}",
                "outputs": [data],
            },
            {
                "oid": data,
                "name": "out",
                "categoryType": "Data",
                "dropclass": "dlg.data.drops.memory.InMemoryDROP",
                "producers": [app],
            },
        ]
    return drops


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[DropLogs]:
    import dlg.runtime  # noqa: F401  # before any other engine module
    from dlg.manager.session import track_current_session

    root = logging.getLogger()
    monkeypatch.setattr(root, "addHandler", root.addHandler)
    before = list(root.handlers)
    logs = DropLogs(lambda: getattr(getattr(track_current_session.tlocal, "session", None), "sessionId", ""))
    logs.install()
    yield logs
    root.handlers[:] = before


@pytest.fixture
def manager(logs: DropLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from dlg.manager.node_manager import NodeManager

    monkeypatch.setenv("DLG_ROOT", str(tmp_path))
    monkeypatch.setenv("DLG_SESSION_ID", "")  # the engine sets it for the whole process
    monkeypatch.chdir(tmp_path)  # and changes the folder
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    running = NodeManager(host="127.0.0.1", rpc_port=ports[0], events_port=ports[1])
    yield running
    running.shutdown()


def deploy(manager: Any, session: str, count: int) -> Any:
    manager.createSession(session)
    manager.addGraphSpec(session, _specification(session, count))
    manager.deploySession(session, completedDrops=[])
    return manager.sessions[session]


def say(drop: Any, text: str) -> None:
    from dlg.drop import track_current_drop

    @track_current_drop  # type: ignore[untyped-decorator]
    def within(drop: Any) -> None:
        logging.getLogger("dlg.test").error(text)

    within(drop)


def test_a_record_reaches_its_drop_and_the_file_of_its_session_and_no_other(manager: Any, tmp_path: Path) -> None:
    first, second = deploy(manager, "s1", 2), deploy(manager, "s2", 2)
    say(first.drops["s1_a1_0"], "only here")
    assert ["only here" in record["Message"] for record in first.drops["s1_a1_0"].getLogs()] == [True]
    for session, oid in ((first, "s1_a0_0"), (second, "s2_a1_0")):
        assert session.drops[oid].getLogs() == []
    files = {name: next((tmp_path / "workspace" / name).glob("dlg_*.log")) for name in ("s1", "s2")}
    assert "only here" in files["s1"].read_text()
    assert files["s2"].read_text() == ""


def test_sessions_leave_nothing_behind_when_they_are_removed(manager: Any, logs: DropLogs) -> None:
    root = logging.getLogger()
    handlers, loggers = list(root.handlers), len(logging.Logger.manager.loggerDict)
    deploy(manager, "kept", 1)
    kept = logs.count()
    known = len(logging.Logger.manager.loggerDict)
    assert known > loggers
    for number in range(3):
        deploy(manager, f"r{number}", 20)
        manager.destroySession(f"r{number}")
        logs.forget(f"r{number}")
    assert root.handlers == handlers
    assert logs.count() == kept
    assert len(logging.Logger.manager.loggerDict) == known


def test_the_file_of_a_session_that_has_ended_is_closed_and_opened_again_when_needed(
    manager: Any, logs: DropLogs, tmp_path: Path
) -> None:
    session = deploy(manager, "late", 1)
    logs.rest("late")
    assert session.file_handler.stream is None
    say(session.drops["late_a0_0"], "afterwards")
    assert "afterwards" in next((tmp_path / "workspace" / "late").glob("dlg_*.log")).read_text()


def test_other_handlers_are_added_as_ever(logs: DropLogs) -> None:
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    assert handler in logging.getLogger().handlers
