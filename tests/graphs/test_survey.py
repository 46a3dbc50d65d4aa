"""survey.graph on a real engine: batches side by side, gathered with and without failed ones."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from dlg_ml_tasks.graphs.document import parameters_of
from dlg_ml_tasks.graphs.follow import SessionResult, follow
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.graphs.override import override
from dlg_ml_tasks.graphs.shipped import survey
from dlg_ml_tasks.graphs.submit import submit, translate

pytestmark = pytest.mark.integration


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A folder with five files of digits; the last is held back."""
    for index, role in enumerate(("train", "train", "train", "train", "heldback")):
        draw = np.random.default_rng(index)
        images, labels = draw.integers(0, 17, (8, 8, 8), np.uint8), draw.integers(0, 10, 8)
        np.savez(tmp_path / f"n{index}.{role}.npz", images=images, labels=labels)
    return tmp_path


@pytest.fixture
def runs(engine: Any) -> Any:
    """Finds a session's runs by node."""
    client = MlflowClient(engine.tracking_uri)

    def find(result: SessionResult) -> dict[str, Run]:
        experiments = [each.experiment_id for each in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.`dlg_ml.session` = '{result.session}'")
        return {run.data.tags["dlg_ml.node"]: run for run in found if "dlg_ml.node" in run.data.tags}

    return find


def survey_of(night: Path, *settings: str) -> dict[str, Any]:
    name = f"m{uuid.uuid4().hex[:8]}"
    return override(
        survey().build(),
        [
            "recipe=digits",
            f"model_name={name}",
            f"infer.model=models:/{name}@champion",
            f"load_raw.sources={night}/*.npz",
            "train.epochs=1",
            "train.steps_per_epoch=5",
            *settings,
        ],
    )


def run(engine: Any, night: Path, *settings: str) -> SessionResult:
    island = Island(engine.address)
    return follow(island, submit(survey_of(night, *settings), island))


def run_unchecked(engine: Any, graph: dict[str, Any]) -> SessionResult:
    """Deploy as the translator's page does with what EAGLE sends, past the checks."""
    from dlg import droputils

    island, session = Island(engine.address), f"unchecked-{uuid.uuid4().hex[:8]}"
    drops = translate(graph, session, island.nodes())
    island.create_session(session)
    island.append_graph(session, drops)
    island.deploy(session, sorted(droputils.get_roots(drops)))
    return follow(island, session)


def states(result: SessionResult) -> dict[str, str]:
    return {task.node: task.state for task in result.tasks}


def test_batches_are_loaded_side_by_side_and_gathered(engine: Any, night: Path, runs: Any) -> None:
    result = run(engine, night, "batches=2")
    assert result.ok, result.reason
    assert states(result) == dict.fromkeys(
        ("load_raw/1", "load_raw/2", "preprocess/1", "preprocess/2", "train", "promote", "infer"), "finished"
    )
    found = runs(result)
    assert {found[f"load_raw/{n}"].data.metrics["files"] for n in (1, 2)} == {2, 3}
    assert (found["train"].data.metrics["batches"], found["train"].data.metrics["batches_failed"]) == (2, 0)


def test_a_failed_batch_is_left_out_and_named_in_the_result(engine: Any, night: Path, runs: Any) -> None:
    (night / "n0.train.npz").write_bytes(b"torn")
    result = run(engine, night, "batches=3")
    assert result.ok, result.reason
    assert states(result)["preprocess/1"] == "failed"
    for node in ("train", "promote", "infer"):
        assert states(result)[node] == "finished"
    train = runs(result)["train"]
    assert train.data.metrics["batches_failed"] == 1
    assert "preprocess/1" in train.data.tags["dlg_ml.left_out"]
    assert "n0.train.npz" in train.data.tags["dlg_ml.left_out"]


def test_more_failed_batches_than_allowed_end_the_session_with_their_names(engine: Any, night: Path, runs: Any) -> None:
    for torn in ("n0", "n2"):
        (night / f"{torn}.train.npz").write_bytes(b"torn")
    result = run(engine, night, "batches=3")
    assert not result.ok
    for part in ("2 of 3 batches failed", "n0.train.npz", "n2.train.npz"):
        assert part in result.reason
    assert runs(result)["train"].info.status == "FAILED"
    assert [states(result)[node] for node in ("train", "promote", "infer")] == ["failed", "skipped", "skipped"]


def test_a_failed_batch_stops_the_survey_where_none_is_allowed(engine: Any, night: Path) -> None:
    (night / "n1.train.npz").write_bytes(b"torn")
    result = run(engine, night, "batches=3", "max_failed_batches=0")
    assert not result.ok
    assert "preprocess/2" in result.reason
    assert states(result)["train"] == "skipped"


def test_a_survey_of_more_batches_than_files_works(engine: Any, night: Path, runs: Any) -> None:
    result = run(engine, night, "batches=7")
    assert result.ok, result.reason
    assert runs(result)["load_raw/7"].data.metrics["files"] == 0


def test_fewer_copies_than_batches_lose_no_file_without_a_word(engine: Any, night: Path) -> None:
    graph = survey_of(night, "batches=3", "max_failed_batches=0")
    scatter = next(node for node in graph["nodeDataArray"] if node["name"] == "batches")
    parameters_of(scatter)["num_of_copies"]["value"] = 2
    result = run_unchecked(engine, graph)
    assert not result.ok
    assert "1 of 3 batches failed" in result.reason
    assert "batch 3" in result.reason
