"""What the engine's states mean for a session's tasks."""

from __future__ import annotations

from typing import Any

import pytest

from dlg_ml_tasks.graphs.overview import find_session, graph_and_start
from dlg_ml_tasks.graphs.snapshot import DeployedGraph
from dlg_ml_tasks.graphs.states import DropState, ExecutionState
from dlg_ml_tasks.graphs.submit import choose_nodes
from dlg_ml_tasks.tasks import BadInput

DONE = {"status": DropState.COMPLETED, "execStatus": ExecutionState.FINISHED}
RUNNING = {"status": DropState.INITIALIZED, "execStatus": ExecutionState.RUNNING}
WAITING = {"status": DropState.INITIALIZED, "execStatus": ExecutionState.NOT_RUN}
FAILED = {"status": DropState.ERROR, "execStatus": ExecutionState.ERROR}


def chain(*names: str, nodes: tuple[str, ...] = ("n1",), **last: Any) -> dict[str, dict[str, Any]]:
    """Applications in a row with a data drop after each, dealt out to the nodes; `last` goes into the last application."""
    drops: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(names):
        host = nodes[number % len(nodes)]
        app: dict[str, Any] = {"name": name, "categoryType": "Application", "node": host, "outputs": [f"{name}-out"]}
        data: dict[str, Any] = {"name": "out", "categoryType": "Data", "node": host, "producers": [name]}
        if number:
            app["inputs"] = [{f"{names[number - 1]}-out": "raw"}]
            drops[f"{names[number - 1]}-out"]["consumers"] = [name]
        drops |= {name: app, f"{name}-out": data}
    drops[names[-1]] |= last
    return drops


def states(graph: DeployedGraph, drops: Any, lost: frozenset[str] = frozenset()) -> dict[str, str]:
    return {task.node: task.state for task in graph.tasks(drops, lost)}


def test_tasks_stand_after_those_they_wait_for_although_nodes_list_only_their_own() -> None:
    drops = chain("load", "work", "train", nodes=("n1", "n2"))
    shuffled = dict(sorted(drops.items(), reverse=True))
    assert [task.node for task in DeployedGraph(shuffled).tasks({})] == ["load", "work", "train"]


def test_copies_of_a_scatter_have_their_numbers_and_stand_in_their_order() -> None:
    drops = {
        f"a_0-{index}": {"name": "load", "categoryType": "Application", "node": "n1", "iid": f"0-{index}"}
        for index in (10, 9, 0)
    }
    assert [task.node for task in DeployedGraph(drops).tasks({})] == ["load/1", "load/10", "load/11"]


def test_what_comes_after_a_failure_is_skipped_unless_it_goes_on_by_itself() -> None:
    seen = {"load": FAILED, "load-out": {"status": DropState.ERROR}, "train": FAILED}
    for chained in (chain("load", "train"), chain("load", "train", max_failed_batches=2)):
        assert states(DeployedGraph(chained), seen) == {"load": "failed", "train": "skipped"}


def test_what_may_go_on_without_some_batches_fails_by_itself() -> None:
    seen = {"load": FAILED, "out_0-1": {"status": DropState.ERROR}, "train": FAILED}
    drops = chain("load", "train", max_failed_batches=2)
    drops["out_0-1"] = drops.pop("load-out")
    drops["train"]["inputs"] = [{"out_0-1": "data"}]
    drops["load"]["outputs"] = ["out_0-1"]
    assert states(DeployedGraph(drops), seen) == {"load": "failed", "train": "failed"}


def test_what_had_not_ended_on_a_lost_node_failed_or_will_not_run() -> None:
    graph = DeployedGraph(chain("load", "work", "train", nodes=("n1", "n2", "n3")))
    seen = {"load": DONE, "work": RUNNING, "train": WAITING}
    assert states(graph, seen, frozenset({"n1", "n2", "n3"})) == {
        "load": "finished",
        "work": "failed",
        "train": "skipped",
    }
    assert states(graph, seen, frozenset({"n1"})) == {"load": "finished", "work": "running", "train": "waiting"}


def test_success_is_that_of_the_last_drops() -> None:
    graph = DeployedGraph(chain("load", "train"))
    assert not graph.has_succeeded({})
    assert graph.has_succeeded({"load": FAILED, "train-out": {"status": DropState.COMPLETED}})
    assert not DeployedGraph({}).has_succeeded({})


NODES = ["10.0.0.1:8000:5555:6666", "10.0.0.1:8010:5556:6667", "10.0.0.2:8000:5555:6666"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, NODES),
        ("2", NODES[:2]),
        ("10.0.0.2:8000", NODES[2:]),
        ("10.0.0.2:8000, 10.0.0.1:8010,10.0.0.2:8000", [NODES[2], NODES[1]]),
        ("10.0.0.2", NODES[2:]),
    ],
)
def test_nodes_are_chosen_by_number_or_address(wanted: str | None, chosen: list[str]) -> None:
    assert choose_nodes(NODES, wanted) == chosen


@pytest.mark.parametrize("wanted", ["0", "4", "10.0.0.1", "10.0.0.3:8000", ",", ""])
def test_nodes_that_are_not_there_or_not_one_are_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(BadInput, match=r"10\.0\.0\.2:8000"):
        choose_nodes(NODES, wanted)


def test_without_a_node_there_is_nothing_to_choose() -> None:
    with pytest.raises(BadInput, match="dlg-ml up"):
        choose_nodes([], None)


SESSIONS = ["train-20261121T100302123456", "train-20261121T100402123456", "survey1_2026-11-21T10-03-02.123456"]


@pytest.mark.parametrize(
    ("wanted", "found"), [("survey", 2), ("1003021", 0), ("train-20261121T1004", 1), (SESSIONS[0], 0)]
)
def test_a_session_may_be_named_in_short(wanted: str, found: int) -> None:
    assert find_session(wanted, iter(SESSIONS)) == SESSIONS[found]


@pytest.mark.parametrize(("wanted", "words"), [("train", "short for 2"), ("x", "no session 'x'")])
def test_a_name_that_is_not_one_sessions_is_refused(wanted: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        find_session(wanted, iter(SESSIONS))


def test_names_tell_graph_and_start() -> None:
    told = [graph_and_start(each) for each in SESSIONS]
    assert [(graph, str(start)) for graph, start in told] == [
        ("train", "2026-11-21 10:03:02+00:00"),
        ("train", "2026-11-21 10:04:02+00:00"),
        ("survey", "2026-11-21 10:03:02+00:00"),
    ]
    assert graph_and_start("by hand") == ("by hand", None)
