"""A survey loaded in batches: what each holds, and how the tasks that gather them go on when some are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from dlg_ml_tasks.tasks import BadInput, BatchesFailed, Outcome, infer, load_raw, preprocess, promote, retrain, train
from dlg_ml_tasks.tasks.batches import Lost
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.failures import failures
from dlg_ml_tasks.tracking.files import download, download_artifact

pytestmark = pytest.mark.usefixtures("tracking")
DIGITS = {"recipe": "digits"}
QUICK = {**DIGITS, "epochs": 1, "steps_per_epoch": 5}


@pytest.fixture
def survey(tmp_path: Path) -> str:
    """A folder of five labelled files, the last held back; returns the pattern that finds them."""
    folder = tmp_path / "survey"
    folder.mkdir()
    for index, role in enumerate(("train", "train", "train", "train", "heldback")):
        _write(folder / f"n{index}.{role}.npz", index)
    return f"{folder}/*.npz"


def _write(path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    np.savez(path, images=draw.integers(0, 17, (8, 8, 8), np.uint8), labels=draw.integers(0, 10, 8))


def _load(sources: str, number: int, of: int) -> Outcome:
    return load_raw.run({"sources": sources, "batch": number, "batches": of, **DIGITS})


def _data(sources: str, number: int, of: int) -> Reference:
    return preprocess.run(DIGITS, {"raw": [_load(sources, number, of).reference]}).reference


def _names(reference: Reference, folder: Path) -> set[str]:
    return {path.name for path in download(reference, folder).rglob("*.npz")}


def test_batches_together_hold_every_file_once(survey: str, tmp_path: Path) -> None:
    parts = [_names(_load(survey, number, 2).reference, tmp_path / str(number)) for number in (1, 2)]
    assert parts == [{"n0.train.npz", "n2.train.npz", "n4.heldback.npz"}, {"n1.train.npz", "n3.train.npz"}]


def test_sample_data_come_in_batches_too(tmp_path: Path) -> None:
    counts = [_load("sample:night-A", number, 4).metrics["files"] for number in (1, 2, 3, 4)]
    assert counts == [2, 2, 1, 1]


def test_a_new_file_is_loaded_without_doing_the_other_batches_again(survey: str) -> None:
    before = [_load(survey, number, 3) for number in (1, 2, 3)]
    _write(Path(survey).parent / "n5.train.npz", 5)
    after = [_load(survey, number, 3) for number in (1, 2, 3)]
    assert not any(outcome.reused for outcome in before)
    assert [outcome.reused for outcome in after] == [True, True, False]


def test_which_batch_must_be_said(survey: str) -> None:
    with pytest.raises(BadInput, match="which of the 3 batches"):
        load_raw.run({"sources": survey, "batches": 3, **DIGITS})


def test_more_batches_than_files_make_empty_data_sets_that_are_reused_and_trained_without(
    survey: str, tmp_path: Path
) -> None:
    data = [_data(survey, number, 7) for number in range(1, 8)]
    again = _load(survey, 7, 7)
    assert (again.reused, again.metrics["files"]) == (True, 0)
    outcome = train.run({**QUICK, "model_name": tmp_path.name}, {"data": data})
    metrics = MlflowClient().get_run(outcome.run_id).data.metrics
    assert (metrics["batches"], metrics["batches_failed"]) == (7, 0)


def test_a_file_with_the_name_of_the_batchs_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dlg-ml-batch.json").write_text("{}")
    with pytest.raises(BadInput, match=r"dlg-ml-batch\.json.*rename"):
        load_raw.run({"sources": str(tmp_path)})


def test_training_on_a_part_of_the_batches_is_refused_unless_allowed(survey: str, tmp_path: Path) -> None:
    data = [_data(survey, number, 3) for number in (1, 3)]
    params = {**QUICK, "model_name": tmp_path.name}
    with pytest.raises(BatchesFailed, match=r"1 of 3 batches failed, max_failed_batches allows 0: batch 2"):
        train.run(params, {"data": data})
    outcome = train.run({**params, "max_failed_batches": 1}, {"data": data})
    run = MlflowClient().get_run(outcome.run_id)
    assert (run.data.metrics["batches"], run.data.metrics["batches_failed"]) == (3, 1)
    assert run.data.tags["dlg_ml.left_out"].startswith("batch 2 (")
    table = download_artifact(outcome.run_id, "batches.json", tmp_path / "table")
    assert table is not None
    report = json.loads(table.read_text())
    assert [row["number"] for row in report["used"]] == [1, 3]
    assert list(report["left_out"]) == ["2"]


def test_every_task_that_gathers_batches_can_go_on_without_some(survey: str, tmp_path: Path) -> None:
    lost = [Lost("data", 1)]
    data = [_data(survey, number, 3) for number in (2, 3)]
    model = {**DIGITS, "model_name": tmp_path.name, "max_failed_batches": 1}
    first = train.run({**model, **QUICK}, {"data": data}, lost=lost)
    second = retrain.run({**model, **QUICK, "seed": 1}, {"data": data, "model": [first.reference]}, lost=lost)
    gate = promote.run(model, {"model": [second.reference], "data": data}, lost=lost)
    results = infer.run(
        {**DIGITS, "model": first.reference.uri, "max_failed_batches": 1, "held_back_only": False},
        {"data": data},
        lost=lost,
    )
    for outcome in (first, second, gate, results):
        assert MlflowClient().get_run(outcome.run_id).data.metrics["batches_failed"] == 1


def test_the_reason_is_what_the_failed_copy_said_in_the_same_session(survey: str, tmp_path: Path) -> None:
    session = f"session-{tmp_path.name}"
    with pytest.raises(BadInput):
        load_raw.run({"sources": "/no/such/file", **DIGITS}, session=session, node="load_raw/2")
    data = [_data(survey, number, 3) for number in (1, 3)]
    params = {**QUICK, "model_name": tmp_path.name}
    with pytest.raises(BatchesFailed, match=r"batch 2 \(load_raw/2: source '/no/such/file' holds no file"):
        train.run(params, {"data": data}, session=session, node="train", lost=[Lost("data", 2)])
    outcome = train.run({**params, "max_failed_batches": 1}, {"data": data}, session=session, lost=[Lost("data", 2)])
    assert "/no/such/file" in MlflowClient().get_run(outcome.run_id).data.tags["dlg_ml.left_out"]


def test_all_batches_lost_are_named_although_nothing_is_left_to_work_on() -> None:
    with pytest.raises(BatchesFailed, match=r"2 of 2 batches failed, max_failed_batches allows 1: batch 1 .*batch 2"):
        train.run({**QUICK, "model_name": "none", "max_failed_batches": 1}, {}, lost=[Lost("data", 1), Lost("data", 2)])


def test_of_very_many_lost_batches_all_are_named_and_the_first_explained() -> None:
    with pytest.raises(BatchesFailed) as caught:
        train.run({**QUICK, "model_name": "none"}, {}, lost=[Lost("data", number) for number in range(1, 1001)])
    assert str(caught.value).count("left a reason") == 5
    assert ", 999, 1000;" in str(caught.value)


def test_a_task_that_is_refused_in_a_session_leaves_a_failed_run_with_the_reason(tmp_path: Path) -> None:
    session = f"session-{tmp_path.name}"
    with pytest.raises(BadInput):
        infer.run(
            {**DIGITS, "model": "models:/nobody@champion"}, {"data": [_data("sample:night-A", 1, 1)]}, session=session
        )
    assert "models:/nobody@champion" in failures(session)["infer"]
