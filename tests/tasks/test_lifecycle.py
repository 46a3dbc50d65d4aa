"""The six tasks called as functions, on the digits recipe, with a real archive and MLflow's database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from mlflow import MlflowClient

from dlg_ml_tasks.tasks import (
    BadInput,
    Outcome,
    ServiceDown,
    TaskCancelled,
    TrainingDiverged,
    infer,
    load_raw,
    preprocess,
    promote,
    retrain,
    train,
)
from dlg_ml_tasks.tasks.environment import SCRATCH
from dlg_ml_tasks.tracking import Reference, registry
from dlg_ml_tasks.tracking.files import download, download_artifact

pytestmark = pytest.mark.usefixtures("tracking")
DIGITS = {"recipe": "digits"}
QUICK = {**DIGITS, "epochs": 1, "steps_per_epoch": 10}


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A model name of the test's own: the registry is shared."""
    return f"digits-{tmp_path.name}"


def _data(night: str = "night-A") -> Reference:
    raw = load_raw.run({"sources": f"sample:{night}", **DIGITS})
    return preprocess.run(DIGITS, {"raw": [raw.reference]}).reference


def _status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_a_model_is_trained_retrained_promoted_and_applied(name: str, tmp_path: Path) -> None:
    model = {**DIGITS, "model_name": name}
    a, b = _data("night-A"), _data("night-B")
    first = train.run(model, {"data": [a]})
    assert registry.resolve(f"models:/{name}@champion") == first.reference
    assert first.metrics["accuracy"] > 0.8

    second = retrain.run(model, {"data": [b], "replay": [a], "model": [first.reference]})
    versions = registry.versions(name)
    assert [version.aliases for version in versions] == [("champion",), ("challenger",)]
    assert versions[1].tags["retrained_from"] == f"models:/{name}/1"

    gate = promote.run(model, {"model": [second.reference], "data": [b], "earlier": [a]})
    assert gate.metrics["promoted"] == 1
    assert gate.metrics["challenger_new"] > gate.metrics["champion_new"] + 0.2
    assert registry.resolve(f"models:/{name}@champion") == second.reference

    results = infer.run({**DIGITS, "model": f"models:/{name}@champion"}, {"data": [a, b]})
    folder = download(results.reference, tmp_path / "results")
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json",
        "shows.json",
        *(
            f"digits.{night}.{index}.{role}.npz"
            for night in "AB"
            for index, role in ((4, "heldback"), (5, "unlabelled"))
        ),
    }
    assert json.loads((folder / "metrics.json").read_text())["model"] == f"models:/{name}/2"
    assert len(list(folder.rglob("*.png"))) == 4


def test_the_same_task_on_the_same_inputs_is_done_once(name: str) -> None:
    first = load_raw.run({"sources": "sample:night-A", **DIGITS})
    again = load_raw.run({"sources": "sample:night-A", **DIGITS})
    other = load_raw.run({"sources": "sample:night-A", "seed": 1, **DIGITS})
    forced = load_raw.run({"sources": "sample:night-A", **DIGITS}, force=True)
    assert (again.reused, again.run_id, again.reference) == (True, first.run_id, first.reference)
    assert not other.reused
    assert not forced.reused
    assert forced.reference.digest == first.reference.digest


def test_a_changed_source_file_is_loaded_again(tmp_path: Path) -> None:
    source = tmp_path / "x.npz"
    outcomes: list[Outcome] = []
    for content in (b"one", b"two, longer"):
        source.write_bytes(content)
        outcomes.append(load_raw.run({"sources": str(source)}))
    assert not outcomes[1].reused
    assert outcomes[0].reference.digest != outcomes[1].reference.digest


def test_training_twice_gives_the_same_bits_within_a_slurm_job_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    first = train.run({**QUICK, "model_name": f"{name}-1"}, {"data": [data]}).reference.digest
    for variable, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "dlg-ml", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(variable, value)
    again = train.run({**QUICK, "model_name": f"{name}-2"}, {"data": [data]}).reference.digest
    other = train.run({**QUICK, "model_name": name, "seed": 1}, {"data": [data]}).reference.digest
    assert first == again != other


def test_a_training_killed_between_epochs_resumes_to_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    params = {**QUICK, "epochs": 3, "model_name": name}
    whole = train.run({**params, "model_name": f"{name}-whole"}, {"data": [data]})

    from dlg_ml_tasks.tasks.fitting import _Keep

    keep = _Keep.on_train_epoch_end

    def keep_then_cancel(self: _Keep, trainer: object, module: object) -> None:
        keep(self, trainer, module)
        raise TaskCancelled

    runs: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(_Keep, "on_train_epoch_end", keep_then_cancel)
        with pytest.raises(TaskCancelled):
            train.run(params, {"data": [data]}, on_start=runs.append)
    assert _status(runs[0]) == "KILLED"

    resumed = train.run(params, {"data": [data]})
    assert MlflowClient().get_run(resumed.run_id).data.tags["dlg_ml.resumed_from"] == runs[0]
    assert resumed.reference.digest == whole.reference.digest


def test_a_run_carries_what_is_needed_to_understand_it(name: str) -> None:
    outcome = train.run({**QUICK, "model_name": name}, {"data": [_data()]}, session="s-1", node="my-train")
    client = MlflowClient()
    run = client.get_run(outcome.run_id)
    assert run.info.run_name == "my-train"
    assert run.data.params["seed"] == "0"
    assert run.data.tags["mlflow.source.git.commit"]
    assert run.data.tags["mlflow.parentRunId"]
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["data-0"]
    names = {info.path for info in client.list_artifacts(outcome.run_id)}
    assert names >= {"task.log", "environment.json", "inputs.json", "model_summary.txt", "checkpoints"}


def _bad_source(tmp_path: Path) -> None:
    load_raw.run({"sources": str(tmp_path / "missing-*.npz")})


def _empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    load_raw.run({"sources": str(tmp_path / "empty.npz")})


def _password(tmp_path: Path) -> None:
    load_raw.run({"sources": "ftp://user:secret@127.0.0.1/x"})


def _same_names(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.npz").write_bytes(b"1")
    load_raw.run({"sources": [str(tmp_path / "a/x.npz"), str(tmp_path / "b/x.npz")]})


def _unreadable(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK not really")
    raw = load_raw.run({"sources": str(tmp_path / "torn.npz")})
    preprocess.run(DIGITS, {"raw": [raw.reference]})


def _no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", images=np.zeros((4, 8, 8), np.uint8))
    raw = load_raw.run({"sources": str(tmp_path / "plain.npz")})
    data = preprocess.run(DIGITS, {"raw": [raw.reference]}).reference
    train.run({**QUICK, "model_name": "unlabelled"}, {"data": [data]})


def _unknown_model(tmp_path: Path) -> None:
    infer.run({**DIGITS, "model": "models:/nobody@champion"}, {"data": [_data()]})


def _unknown_sample(tmp_path: Path) -> None:
    load_raw.run({"sources": "sample:night-C", **DIGITS})


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (_bad_source, "missing-*.npz"),
        (_empty_file, "empty.npz"),
        (_same_names, "x.npz"),
        (_unreadable, "torn.npz"),
        (_no_labels, "no labelled item"),
        (_unknown_model, "models:/nobody@champion"),
        (_unknown_sample, "night-C"),
    ],
)
def test_bad_input_is_named_in_one_line(act: Callable[[Path], None], named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        act(tmp_path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_in_a_source_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        _password(tmp_path)
    assert "secret" not in str(caught.value)


def test_one_bad_file_among_many_can_be_skipped(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "torn.npz").write_bytes(b"not an archive")
    raw = load_raw.run({"sources": str(tmp_path / "*.npz"), "on_error": "skip"})
    assert (raw.metrics["files"], raw.metrics["skipped"]) == (2, 1)
    data = preprocess.run({**DIGITS, "on_error": "skip"}, {"raw": [raw.reference]})
    assert (data.metrics["files"], data.metrics["skipped"]) == (1, 1)


def test_a_loss_that_is_not_finite_stops_the_training_and_registers_nothing(name: str) -> None:
    started: list[str] = []
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        train.run({**QUICK, "model_name": name, "learning_rate": 1e30}, {"data": [_data()]}, on_start=started.append)
    assert _status(started[0]) == "FAILED"
    assert registry.champion(name) is None


def test_a_failed_task_keeps_its_log(name: str, tmp_path: Path) -> None:
    started: list[str] = []
    with pytest.raises(TrainingDiverged):
        train.run({**QUICK, "model_name": name, "learning_rate": 1e30}, {"data": [_data()]}, on_start=started.append)
    log = download_artifact(started[0], "task.log", tmp_path / "log")
    assert log is not None
    assert "TrainingDiverged" in log.read_text()


def test_data_of_another_recipe_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"'digits'.*'dlg_ml_tasks.recipes.digits:Digits'"):
        train.run(
            {"recipe": "dlg_ml_tasks.recipes.digits:Digits", "model_name": name, "epochs": 1}, {"data": [_data()]}
        )


def test_an_archive_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlg_ml_tasks.archive.server import EmbeddedNgas

    with EmbeddedNgas(tmp_path / "ngas") as server:
        address = f"{server.host}:{server.port}"
    MlflowClient().create_experiment(f"down-{tmp_path.name}", artifact_location=f"ngas://{address}/x")
    monkeypatch.setenv("DLG_ML_EXPERIMENT", f"down-{tmp_path.name}")
    monkeypatch.setitem(fsspec.config.conf, "ngas", {"patience": 1})
    with pytest.raises(ServiceDown, match=address):
        load_raw.run({"sources": "sample:night-A", **DIGITS})


def test_a_full_scratch_disk_is_named_and_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import shutil

    from dlg_ml_tasks.tasks import DiskFull

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/x")

    monkeypatch.setenv(SCRATCH, str(tmp_path))
    monkeypatch.setattr(shutil, "move", full)
    started: list[str] = []
    with pytest.raises(DiskFull, match=r"/scratch/x.*DLG_ML_SCRATCH"):
        load_raw.run({"sources": "sample:night-A", "seed": 77, **DIGITS}, on_start=started.append)
    assert _status(started[0]) == "FAILED"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_scratch_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, "/no/such/folder")
    with pytest.raises(FileNotFoundError, match="/no/such/folder"):
        load_raw.run({"sources": "sample:night-A", "seed": 78, **DIGITS})
