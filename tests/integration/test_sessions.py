"""Sessions on two node managers: seen, cancelled, resumed and ended right, also when nobody follows or a manager dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from dlg_ml_tasks.components import child
from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.follow import cancel, follow
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.stack import load_state

pytestmark = pytest.mark.integration

GRAPHS = Path(__file__).parents[2] / "graphs"
SCRIPTED = "scripted_recipe:Scripted"
STOPPED_WITHIN = child.GRACE_SECONDS + 1
"""Seconds until a cancelled task's process is gone, on a machine that has time for it."""
BUSY_MACHINE = 6


@pytest.fixture(scope="module")
def cluster(stack: Any, home: Path) -> Iterator[Cluster]:
    """The stack with two node managers."""
    stack("up", "--nodes", "2")
    yield Cluster(stack, home)
    stack("up", "--nodes", "1")


class Cluster:
    """The command line on two node managers, and looks behind it."""

    def __init__(self, command: Any, home: Path) -> None:
        self.command = command
        self._home = home

    def service(self, name: str) -> Any:
        state = load_state(self._home)
        assert state is not None
        return state.get(name)

    @contextmanager
    def of(self, nodes: int) -> Iterator[None]:
        """So many node managers for a while."""
        self.command("up", "--nodes", str(nodes))
        try:
            yield
        finally:
            self.command("up", "--nodes", "2")

    @property
    def island(self) -> Island:
        return Island(f"127.0.0.1:{self.service('island').ports['island']}", timeout=60)

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.service("mlflow").url)

    def submit(self, graph: Path, *settings: str, nodes: str = "2") -> str:
        changes = [part for setting in settings for part in ("--set", setting)]
        return str(self.command("run", str(graph), "--detach", "--nodes", nodes, *changes).stdout).strip()

    def json(self, *arguments: str, check: bool = True) -> Any:
        return json.loads(self.command(*arguments, "--json", check=check).stdout)

    def runs(self, session: str) -> list[Run]:
        """The session's own run, and those of its tasks."""
        (experiment,) = self.mlflow.search_experiments(filter_string="name = 'dlg-ml-tasks'")
        return list(
            self.mlflow.search_runs([experiment.experiment_id], f"tags.`dlg_ml.session` = '{session}'", max_results=100)
        )

    def status(self, session: str) -> str:
        (parent,) = [run for run in self.runs(session) if run.data.tags.get("dlg_ml.kind") == "session"]
        return str(parent.info.status)

    def run_of(self, session: str, node: str) -> Run | None:
        """The run of a task that has begun."""
        return next((run for run in self.runs(session) if run.data.tags.get("dlg_ml.node") == node), None)

    def run_status(self, session: str, node: str) -> str | None:
        run = self.run_of(session, node)
        return run and str(run.info.status)

    def progress(self, session: str, node: str) -> str:
        run = self.run_of(session, node)
        return str(run.data.tags.get("dlg_ml.progress", "")) if run else ""

    def node_processes(self) -> set[int]:
        """What the node managers run besides themselves: fork servers and tasks."""
        return {
            child.pid
            for name in ("node", "node-2")
            for child in psutil.Process(self.service(name).pid).children(recursive=True)
        }


def eventually(condition: Callable[[], Any], seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture
def acts(tmp_path: Path) -> Callable[..., Path]:
    """Makes a graph with a chain load-ACT -> preprocess-ACT for each act of the scripted recipe."""

    def write(*names: str) -> Path:
        graph = GraphBuilder("acts", "Chains of two tasks.")
        for name in names:
            raw = graph.task("load_raw", name=f"load-{name}", sources=f"sample:{name}", recipe=SCRIPTED)
            graph.link(raw, graph.task("preprocess", name=f"preprocess-{name}", recipe=SCRIPTED), port="raw")
        path = tmp_path / "acts.graph"
        graph.write(path)
        return path

    return write


def test_a_detached_session_is_listed_shown_and_its_logs_are_kept(cluster: Cluster, acts: Callable[..., Path]) -> None:
    session = cluster.submit(acts("one", "two"))
    short = session[-10:]
    shown = cluster.command("sessions", "show", short, "--follow").stdout
    assert shown.count("finished") >= 4
    (row,) = [row for row in cluster.json("sessions", "list") if row["session"] == session]
    assert (row["state"], row["done"], row["tasks"], row["failed"], row["graph"]) == ("finished", 4, 4, 0, "acts")
    tasks = {task["node"]: task for task in cluster.json("sessions", "show", short)["tasks"]}
    assert {task["state"] for task in tasks.values()} == {"finished"}
    log = cluster.command("sessions", "logs", short, "load-two").stdout
    assert tasks["load-two"]["run_id"] in log
    assert "load-two started" in log
    assert "load-one" not in log


def test_the_run_of_a_session_that_nobody_follows_ends_as_the_session_did(
    cluster: Cluster, acts: Callable[..., Path]
) -> None:
    well, badly = cluster.submit(acts("alone")), cluster.submit(acts("bad"))
    assert eventually(lambda: cluster.status(well) == "FINISHED")
    assert eventually(lambda: cluster.status(badly) == "FAILED")


def test_a_removed_session_is_forgotten_by_the_engine_and_remembered_by_mlflow(
    cluster: Cluster, acts: Callable[..., Path]
) -> None:
    session = cluster.submit(acts("removed"))
    assert follow(cluster.island, session).ok
    cluster.command("sessions", "remove", session)
    assert session not in cluster.island.sessions()
    assert {task["state"] for task in cluster.json("sessions", "show", session)["tasks"]} == {"finished"}
    assert "load-removed started" in cluster.command("sessions", "logs", session, "load-removed").stdout


def test_a_session_is_found_by_a_part_of_its_name_only_if_that_is_its_alone(
    cluster: Cluster, acts: Callable[..., Path]
) -> None:
    cluster.submit(acts("first"))
    cluster.submit(acts("second"))
    several = cluster.command("sessions", "show", "acts-", check=False)
    assert several.returncode == 1
    assert "is short for" in several.stderr
    none = cluster.command("sessions", "cancel", "nothing-like-it", check=False)
    assert none.returncode == 1
    assert "there is no session 'nothing-like-it'" in none.stderr


def test_a_cancelled_training_stops_on_each_node_and_leaves_nothing_visible(cluster: Cluster) -> None:
    before = cluster.node_processes()
    hosts = {name: f"127.0.0.1:{cluster.service(name).ports[name]}" for name in ("node", "node-2")}
    sessions = {
        name: cluster.submit(
            GRAPHS / "train.graph", "recipe=digits", f"model_name=cut-{name}", "train.epochs=5000", nodes=host
        )
        for name, host in hosts.items()
    }
    try:
        for session in sessions.values():
            assert eventually(lambda session=session: "epoch" in cluster.progress(session, "train"))
    finally:
        for session in sessions.values():
            cancel(cluster.island, session)
    children = cluster.node_processes() - before
    assert children
    assert eventually(lambda: not any(map(psutil.pid_exists, children)), BUSY_MACHINE * STOPPED_WITHIN)
    for session in sessions.values():
        assert follow(cluster.island, session).cancelled
        assert eventually(lambda session=session: cluster.status(session) == "KILLED")
        assert cluster.run_status(session, "train") == "KILLED"
        run = cluster.run_of(session, "train")
        assert run is not None
        logged = cluster.mlflow.search_logged_models([run.info.experiment_id])
        assert run.info.run_id not in {model.source_run_id for model in logged}
    assert [model.name for model in cluster.mlflow.search_registered_models() if model.name.startswith("cut")] == []


@pytest.mark.parametrize(("nodes", "cut"), [(2, "outputs"), (4, "inputs")])
def test_a_survey_is_spread_over_nodes_and_its_tasks_read_and_write_on_others(
    cluster: Cluster, nodes: int, cut: str
) -> None:
    name = f"spread-{nodes}"
    settings = ("recipe=digits", f"model_name={name}", f"infer.model=models:/{name}@champion", f"seed={nodes}")
    with cluster.of(nodes):
        session = cluster.submit(GRAPHS / "survey.graph", *settings, "batches=4", nodes=str(nodes))
        result = follow(cluster.island, session)
        drops = cluster.island.graph(session)
    assert result.ok, result.reason
    assert len({task.host for task in result.tasks}) == nodes
    # The translator cuts this graph after the tasks for two nodes, and before them for four.
    assert any(
        drops[next(iter(link)) if isinstance(link, dict) else link]["node"] != drop["node"]
        for drop in drops.values()
        for link in drop.get(cut, ())
    )


def test_a_graph_goes_where_it_is_sent(cluster: Cluster, acts: Callable[..., Path]) -> None:
    port = cluster.service("node-2").ports["node-2"]
    cluster.command("run", str(acts("here")), "--nodes", f"127.0.0.1:{port}")
    newest = cluster.json("sessions", "list")[0]["session"]
    assert {drop["node"].split(":")[1] for drop in cluster.island.graph(newest).values()} == {str(port)}
    refused = cluster.command("run", str(acts("here")), "--nodes", "3", check=False)
    assert refused.returncode == 1
    assert "there are 2" in refused.stderr


def test_a_training_whose_node_manager_is_killed_goes_on_from_its_checkpoint_to_the_same_weights(
    cluster: Cluster,
) -> None:
    def settings(name: str) -> tuple[str, ...]:
        return ("recipe=digits", f"model_name={name}", "train.epochs=12", "seed=7")

    session = cluster.submit(GRAPHS / "train.graph", *settings("interrupted"))

    def has_checkpoint() -> bool:
        run = cluster.run_of(session, "train")
        return bool(run and cluster.mlflow.list_artifacts(run.info.run_id, "checkpoints"))

    assert eventually(has_checkpoint)
    for name in ("node", "node-2"):
        os.kill(cluster.service(name).pid, signal.SIGKILL)
    interrupted = cluster.run_of(session, "train")
    assert interrupted is not None
    assert eventually(lambda: cluster.run_status(session, "train") == "KILLED")
    cluster.command("up")
    again = cluster.submit(GRAPHS / "train.graph", *settings("interrupted"))
    result = follow(cluster.island, again)
    assert result.ok, result.reason
    tasks = {task["node"]: task["state"] for task in cluster.json("sessions", "show", again)["tasks"]}
    assert tasks == {"load_raw": "reused", "preprocess": "reused", "train": "finished"}
    resumed = cluster.run_of(again, "train")
    assert resumed is not None
    assert resumed.data.tags["dlg_ml.resumed_from"] == interrupted.info.run_id
    whole = cluster.submit(GRAPHS / "train.graph", *settings("uninterrupted"))
    assert follow(cluster.island, whole).ok
    uninterrupted = cluster.run_of(whole, "train")
    assert uninterrupted is not None
    assert _digest(resumed) == _digest(uninterrupted)


def _digest(run: Run) -> str:
    return str(json.loads(run.data.tags["dlg_ml.output"])["digest"])


def test_a_session_ends_when_one_of_its_node_managers_dies(cluster: Cluster, acts: Callable[..., Path]) -> None:
    session = cluster.submit(acts("sleep"))
    island = cluster.island

    assert eventually(lambda: cluster.run_of(session, "load-sleep"))
    (host,) = {drop["node"] for drop in island.graph(session).values() if drop["name"] == "load-sleep"}
    victim = next(name for name in ("node", "node-2") if str(cluster.service(name).ports[name]) == host.split(":")[1])
    os.kill(cluster.service(victim).pid, signal.SIGKILL)
    result = follow(island, session, silent_after=2)
    assert not result.ok
    assert host in result.reason
    assert "went away" in result.reason
    assert eventually(lambda: cluster.run_status(session, "load-sleep") == "KILLED")
    assert cluster.command("sessions", "show", session, check=False).returncode == 1
    cluster.command("up")
    assert cluster.command("sessions", "cancel", session).returncode == 0
    assert cluster.status(session) in ("FAILED", "KILLED")


def training(name: str, epochs: int) -> list[str]:
    """Arguments of `dlg-ml run` for a training of the test's own."""
    settings = ("recipe=digits", f"model_name={name}", f"train.epochs={epochs}", "train.seed=11")
    return [str(GRAPHS / "train.graph"), *(f"--set={setting}" for setting in settings)]


def test_who_follows_a_session_is_told_when_the_island_manager_dies_and_finds_the_session_again(
    cluster: Cluster, terminal: Callable[..., Any]
) -> None:
    watcher = terminal("run", *training("headless", 5000))
    watcher.wait_for("epoch")
    session = cluster.json("sessions", "list")[0]["session"]
    os.kill(cluster.service("island").pid, signal.SIGKILL)
    watcher.wait_for("trying again: the data island manager")
    assert watcher.end() == 1
    assert f"follow it again with: dlg-ml sessions show {session} --follow" in watcher.line
    cluster.command("up")
    again = terminal("sessions", "show", session, "--follow")
    again.wait_for("epoch")
    cluster.command("sessions", "cancel", session)
    assert again.end() == 130
    assert cluster.status(session) == "KILLED"


def test_a_followed_training_outlives_island_manager_and_mlflow_where_they_are_started_again(
    cluster: Cluster, terminal: Callable[..., Any]
) -> None:
    watcher = terminal("run", *training("patient", 20))
    watcher.wait_for("epoch")
    for name in ("island", "mlflow"):
        server = psutil.Process(cluster.service(name).pid)
        for process in (*server.children(recursive=True), server):
            process.kill()
    cluster.command("up")
    assert watcher.end() == 0, watcher.text[-2000:]


def test_ctrl_c_asks_and_leaves_or_cancels(cluster: Cluster, terminal: Callable[..., Any]) -> None:
    first = terminal("run", *training("broken-off", 5000))
    first.wait_for("epoch")
    first.press("\x03")
    first.wait_for("cancel session train-")
    first.press("r\r")
    assert first.end() == 130
    session = cluster.json("sessions", "list")[0]["session"]
    assert f"follow it with: dlg-ml sessions show {session} --follow" in first.line
    second = terminal("sessions", "show", session, "--follow")
    second.wait_for("epoch")
    second.press("\x03")
    second.wait_for("cancel session train-")
    second.press("y\r")
    assert second.end() == 130
    assert cluster.status(session) == cluster.run_status(session, "train") == "KILLED"


def test_without_mlflow_nothing_is_deployed(cluster: Cluster, acts: Callable[..., Path]) -> None:
    before = set(cluster.island.sessions())
    server = psutil.Process(cluster.service("mlflow").pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        refused = cluster.command("run", str(acts("never")), check=False)
    finally:
        for process in family:
            process.resume()
    assert refused.returncode == 1
    assert "tracking server" in refused.stderr
    assert set(cluster.island.sessions()) == before
