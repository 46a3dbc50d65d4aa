"""Deploying on a real engine and following to the end, whatever the end is."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.document import settle
from dlg_ml_tasks.graphs.errors import EngineError, EngineRefused, EngineUnreachable
from dlg_ml_tasks.graphs.follow import TaskSnapshot, cancel, follow
from dlg_ml_tasks.graphs.island import Island, NodeStates
from dlg_ml_tasks.graphs.states import ExecutionState, SessionState
from dlg_ml_tasks.graphs.submit import submit, translate
from dlg_ml_tasks.tasks import BadInput

pytestmark = pytest.mark.integration

RECIPE = "scripted_recipe:Scripted"


@pytest.fixture
def island(engine: Any) -> Island:
    return Island(engine.address)


def graph_of(*acts: str) -> dict[str, Any]:
    """One chain load-ACT -> preprocess-ACT for each act of the scripted recipe."""
    graph = GraphBuilder("acts", "Chains of two tasks.")
    for act in acts:
        raw = graph.task("load_raw", name=f"load-{act}", sources=f"sample:{act}", recipe=RECIPE)
        graph.link(raw, graph.task("preprocess", name=f"preprocess-{act}", recipe=RECIPE), port="raw")
    return settle(graph.build())


def states(tasks: tuple[TaskSnapshot, ...]) -> dict[str, str]:
    return {task.node: task.state for task in tasks}


def deploy_unchecked(island: Island, graph: dict[str, Any], session: str) -> None:
    """Deploy as the graph editor would, past the checks."""
    from dlg import droputils

    drops = translate(graph, session, island.nodes())
    island.create_session(session)
    island.append_graph(session, drops)
    island.deploy(session, sorted(droputils.get_roots(drops)))


def set_field(graph: dict[str, Any], node: str, name: str, value: object) -> None:
    for each in graph["nodeDataArray"]:
        for field in each["fields"]:
            if each["name"] == node and field["name"] == name:
                field["value"] = value


def test_a_graph_that_works_ends_well(island: Island) -> None:
    seen: list[dict[str, str]] = []
    result = follow(island, submit(graph_of("fine"), island), on_snapshot=lambda tasks: seen.append(states(tasks)))
    assert result.ok, result.reason
    assert states(result.tasks) == {"load-fine": "finished", "preprocess-fine": "finished"}
    assert seen[-1] == states(result.tasks)
    assert [task.task for task in result.tasks] == ["load_raw", "preprocess"]


def test_a_failure_names_node_reason_and_log_and_what_follows_is_skipped(island: Island) -> None:
    session = submit(graph_of("well", "bad"), island)
    result = follow(island, session)
    assert not result.ok
    assert result.reason == r"load-bad: the sample is bad: C:\users\é; take another"
    assert states(result.tasks) == {
        "load-well": "finished",
        "preprocess-well": "finished",
        "load-bad": "failed",
        "preprocess-bad": "skipped",
    }
    assert [task.node for task in result.failed] == ["load-bad"]
    (log,) = result.logs.values()
    assert "the sample is bad" in Path(log).read_text()


def test_bugs_and_killed_children_are_named_too(island: Island) -> None:
    result = follow(island, submit(graph_of("bug", "die"), island))
    errors = {task.node: task.error for task in result.failed}
    assert errors["load-bug"] == "KeyError: 'nothing'"
    assert "killed by SIGKILL" in errors["load-die"]


def test_log_lines_of_any_kind_reach_the_drops_log(island: Island) -> None:
    session = submit(graph_of("talk"), island)
    result = follow(island, session)
    assert result.ok, result.reason
    records = island.drop_logs(session, result.tasks[0].oid)
    assert any(r"reading C:\users\é" in record["Message"] for record in records)


def children_of(engine: Any) -> set[int]:
    return {child.pid for child in psutil.Process(engine.node_manager.pid).children(recursive=True)}


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_cancelled_session_ends_and_its_processes_too(island: Island, engine: Any) -> None:
    follow(island, submit(graph_of("first"), island))  # the fork server is warm
    before = children_of(engine)
    session = submit(graph_of("sleep", "deaf"), island)
    assert eventually(lambda: len(children_of(engine) - before) >= 3, 30), (
        "both tasks and the deaf one's subprocess run"
    )
    cancel(island, session)
    result = follow(island, session)
    assert not result.ok
    assert result.reason == "cancelled"
    assert set(states(result.tasks).values()) == {"cancelled"}
    assert eventually(lambda: not children_of(engine) - before, 10)


def test_cancelling_what_has_ended_does_nothing(island: Island) -> None:
    session = submit(graph_of("short"), island)
    assert follow(island, session).ok
    cancel(island, session)
    assert follow(island, session).ok


def test_parameters_are_refused_when_the_graph_is_deployed_past_the_checks(island: Island) -> None:
    graph = graph_of("ok")
    set_field(graph, "preprocess-ok", "on_error", "maybe")
    deploy_unchecked(island, graph, "unchecked")
    result = follow(island, "unchecked")
    assert not result.ok
    assert "on_error" in result.reason
    assert "'maybe'" in result.reason
    assert states(result.tasks)["load-ok"] == "cancelled"


def test_an_unknown_component_and_an_empty_port_fail_the_session_at_once_with_the_reason(island: Island) -> None:
    graph = graph_of("here", "gone", "cut")
    set_field(graph, "preprocess-gone", "dropclass", "dlg_ml_tasks.components.NoSuchApp")
    cut = next(node["id"] for node in graph["nodeDataArray"] if node["name"] == "preprocess-cut")
    graph["linkDataArray"] = [link for link in graph["linkDataArray"] if link["to"] != cut]
    deploy_unchecked(island, graph, "half-known")
    result = follow(island, "half-known")
    assert {task.node for task in result.failed} == {"preprocess-gone", "preprocess-cut"}
    assert "unknown component 'dlg_ml_tasks.components.NoSuchApp'" in result.reason
    assert "nothing is connected to its required port 'raw'" in result.reason
    assert states(result.tasks)["load-here"] == "cancelled"


def test_submitting_a_wrong_graph_deploys_nothing(island: Island) -> None:
    graph = graph_of("ok")
    set_field(graph, "load-ok", "seed", -1)
    with pytest.raises(BadInput, match=r"load-ok: .*seed.*-1"):
        submit(graph, island, session="never")
    with pytest.raises(EngineRefused, match="does not know session 'never'"):
        follow(island, "never")


def test_files_between_tasks_are_found_however_late_and_whatever_else_was_deployed(island: Island) -> None:
    builder = GraphBuilder("files", "Files that are written or read late.")
    early = builder.task("load_raw", name="early", sources="sample:early", recipe=RECIPE)
    slow = builder.task("load_raw", name="slow", sources="sample:nap", recipe=RECIPE)
    late = builder.task("preprocess", name="late", recipe=RECIPE)
    builder.link(early, late, port="raw")
    builder.link(slow, late, port="after")
    builder.link(slow, builder.task("preprocess", recipe=RECIPE), port="raw")
    graph = builder.build()
    for name in ("early raw", "slow raw"):
        set_field(graph, name, "dropclass", "dlg.data.drops.file.FileDROP")
    session = submit(graph, island)
    other: list[str] = []

    def deploy_another(tasks: tuple[TaskSnapshot, ...]) -> None:
        if not other and states(tasks)["early"] == "finished":
            other.append(submit(graph_of("other"), island))

    result = follow(island, session, on_snapshot=deploy_another, interval=0.1)
    assert result.ok, result.reason
    assert other


def test_what_else_is_known_of_a_task_is_shown(island: Island) -> None:
    known = {
        "load-known": {"run_id": "r1", "reused": True, "progress": "half", "seconds": 9.0, "metrics": {"files": 1.0}}
    }
    result = follow(island, submit(graph_of("known"), island), enrich=lambda session: known)
    task = result.tasks[0]
    assert (task.state, task.run_id, task.progress, task.seconds, task.metrics) == (
        "reused",
        "r1",
        "half",
        9.0,
        {"files": 1.0},
    )


def test_a_session_in_which_nothing_moves_is_a_failure(island: Island) -> None:
    """Deployed without its roots, no task ever starts, and the engine says RUNNING for ever."""
    drops = translate(graph_of("idle"), "idle", island.nodes())
    island.create_session("idle")
    island.append_graph("idle", drops)
    island.deploy("idle", [])
    result = follow(island, "idle", stuck_after=1, interval=0.1)
    assert not result.ok
    assert "load-idle, preprocess-idle never ran" in result.reason
    cancel(island, "idle")


def test_an_engine_that_is_not_there_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(EngineUnreachable, match=f"127.0.0.1:{port} does not answer"):
        follow(Island(f"127.0.0.1:{port}"), "s", unreachable_after=0)


class SlowIsland:
    """Stands in for an engine of thousands of drops, with a clock of its own: a session that is said to have ended after 120 s."""

    def __init__(self, last_drop_ends: float, is_told: float = 120) -> None:
        self.clock = 0.0
        self._is_told = is_told
        self._last_drop_ends = last_drop_ends

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def monotonic(self) -> float:
        return self.clock

    def session_states(self, session: str) -> NodeStates:
        return NodeStates({"n": SessionState.FINISHED if self.clock > self._is_told else SessionState.RUNNING})

    def graph(self, session: str) -> dict[str, Any]:
        self.sleep(100)
        return {}

    def drop_states(self, session: str) -> dict[str, dict[str, int]]:
        self.sleep(10)
        runs = self.clock < self._last_drop_ends
        return {"drop": {"execStatus": ExecutionState.RUNNING if runs else ExecutionState.FINISHED}}

    def session_folder(self, session: str, node: str) -> str:
        return ""


def test_the_end_of_a_session_that_takes_long_to_describe_is_seen_as_soon_as_the_engine_tells_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert looks_at(SlowIsland(last_drop_ends=120), monkeypatch) == [110, pytest.approx(130.5, abs=0.5)]


def test_a_session_that_failed_while_tasks_still_run_is_not_described_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = looks_at(SlowIsland(last_drop_ends=200), monkeypatch)
    assert looks == [110, pytest.approx(130.5, abs=0.5), pytest.approx(180.5, abs=1), pytest.approx(230.5, abs=2)]


def test_the_graph_which_is_asked_for_once_does_not_make_the_pauses_long(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looks_at(SlowIsland(last_drop_ends=200, is_told=200), monkeypatch)
    assert looks[:2] == [110, pytest.approx(160, abs=1)]


def looks_at(island: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the follower had looked at all drops of the session, by the island's clock."""
    monkeypatch.setattr("dlg_ml_tasks.graphs.follow.time", island)
    looked: list[float] = []
    follow(island, "s", on_snapshot=lambda _: looked.append(island.clock), stuck_after=1000)
    return looked


def test_a_graph_deployed_here_need_not_be_asked_for(island: Island, monkeypatch: pytest.MonkeyPatch) -> None:
    session = submit(graph_of("own"), island)
    theirs = Island(island.address).graph(session)
    monkeypatch.setattr(island, "_call", lambda *arguments, **options: pytest.fail("asked the engine"))
    assert island.graph(session) == theirs


def test_an_address_without_port_is_refused() -> None:
    with pytest.raises(EngineError, match="host:port"):
        Island("localhost")


@pytest.fixture
def short_lived_engine(tmp_path: Path, engine_in: Any) -> Iterator[Any]:
    with engine_in(tmp_path) as started:
        yield started


def test_the_tasks_end_with_their_node_manager(short_lived_engine: Any) -> None:
    island = Island(short_lived_engine.address)
    follow(island, submit(graph_of("first"), island))
    server = children_of(short_lived_engine)
    submit(graph_of("sleep"), island)
    assert eventually(lambda: bool(children_of(short_lived_engine) - server), 30)
    task = [psutil.Process(pid) for pid in children_of(short_lived_engine) - server]
    os.kill(short_lived_engine.node_manager.pid, signal.SIGTERM)
    assert short_lived_engine.node_manager.wait(20) == 0
    _, alive = psutil.wait_procs(task, timeout=10)
    assert alive == []
