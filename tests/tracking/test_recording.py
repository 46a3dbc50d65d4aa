"""Runs told to a tracking server by MLflow's own calls, and by the three that this project's server takes: both leave the same."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.recording import Beginning, Begun, DirectRecorder, Found, Input, MlflowRecorder, Recorder
from dlg_ml_tasks.tracking.runs import TaskRun, TaskToRun
from dlg_ml_tasks.tracking.store import reachable_client, recorder_for
from dlg_ml_tasks.tracking.tags import FINGERPRINT, OUTPUT

NAMES = ("raw-0", "raw-1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of `mlflow server --app-name dlg-ml`."""
    folder = tmp_path_factory.mktemp("recording")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_", "DLG_ML"))}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "dlg-ml", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", "sqlite:///mlflow.db", "--default-artifact-root", str(folder / "artifacts")),
        *("--no-serve-artifacts", "--workers", "1"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            with contextlib.suppress(URLError, OSError), urlopen(f"{url}/health", timeout=5):
                break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.25)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(timeout=60)


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("DLG_ML_EXPERIMENT", "recording")
    return MlflowClient(server)


@pytest.fixture
def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("recording")
    return str(found.experiment_id) if found else str(client.create_experiment("recording"))


def _recorders(client: MlflowClient, server: str) -> tuple[Recorder, Recorder]:
    return MlflowRecorder(client), DirectRecorder(server)


def _beginning(experiment: str, **tags: str) -> Beginning:
    inputs = [Input(name, "d" * 32, "files", '{"uri": "runs:/x"}', "raw") for name in NAMES]
    return Beginning(experiment, "load/1", {"extra": "é", **tags}, inputs)


def _kept(run: Run) -> dict[str, Any]:
    """All that MLflow knows of a run but what differs from run to run."""
    info = {k: v for k, v in dict(run.info).items() if k not in ("run_id", "run_uuid", "start_time", "end_time")}
    info["artifact_uri"] = info["artifact_uri"].replace(run.info.run_id, "ID")
    inputs = [
        (each.dataset.to_dictionary(), {tag.key: tag.value for tag in each.tags}) for each in run.inputs.dataset_inputs
    ]
    return {
        "info": info,
        "params": run.data.params,
        "metrics": {key: repr(value) for key, value in run.data.metrics.items()},
        "tags": run.data.tags,
        "inputs": sorted(inputs, key=str),
        "ended": run.info.end_time is not None and run.info.end_time >= run.info.start_time,
    }


def _both(client: MlflowClient, server: str, record: Callable[[Recorder], str]) -> list[dict[str, Any]]:
    return [_kept(client.get_run(record(recorder))) for recorder in _recorders(client, server)]


def test_both_ways_leave_the_same_run(client: MlflowClient, server: str, experiment: str) -> None:
    def record(recorder: Recorder) -> str:
        run_id = recorder.begin(_beginning(experiment)).run_id
        stamp = int(time.time() * 1000)
        metrics = [Metric("loss", 0.5, stamp, 0), Metric("score", float("nan"), stamp, 0), Metric("n", 3, stamp, 0)]
        recorder.end(run_id, "FINISHED", {"a": "1", "b": ""}, metrics, {"out": "x", "extra": "changed"})
        for text in ("", "é"):
            recorder.tag(run_id, {"noted": text, "after": "its end"})
        return run_id

    by_mlflow, directly = _both(client, server, record)
    assert by_mlflow == directly
    assert directly["tags"]["noted"] == "é"
    assert directly["inputs"] and directly["params"] and directly["ended"]


def test_a_run_that_was_written_to_between_its_two_calls_is_the_same_too(
    client: MlflowClient, server: str, experiment: str
) -> None:
    def record(recorder: Recorder) -> str:
        run_id = recorder.begin(_beginning(experiment)).run_id
        client.log_batch(run_id, metrics=[Metric("loss", 9.0, 1, 5), Metric("other", 1.0, 1, 0)])
        recorder.end(run_id, "FAILED", {}, [Metric("loss", 1.0, 2, 4), Metric("loss", 7.0, 2, 6)], {})
        return run_id

    by_mlflow, directly = _both(client, server, record)
    assert by_mlflow == directly
    assert directly["metrics"] == {"loss": "7.0", "other": "1.0"}


def test_asking_twice_changes_nothing(client: MlflowClient, server: str, experiment: str) -> None:
    recorder = DirectRecorder(server)
    run_id = recorder.begin(_beginning(experiment)).run_id
    kept = []
    for _ in range(2):
        recorder.end(run_id, "FINISHED", {"a": "1"}, [Metric("loss", 1.0, 2, 0)], {"out": "x"})
        kept.append(_kept(client.get_run(run_id)))
    assert kept[0] == kept[1]
    assert len(client.get_metric_history(run_id, "loss")) == 1


def test_a_run_begins_only_if_no_finished_one_has_the_fingerprint(server: str, experiment: str) -> None:
    recorder = DirectRecorder(server)

    def begin(fingerprint: str) -> Begun | Found | None:
        return recorder.begin_unless_finished(_beginning(experiment, **{FINGERPRINT: fingerprint}), fingerprint)

    first, second = begin("f1"), begin("f1")
    assert isinstance(first, Begun) and isinstance(second, Begun)
    recorder.end(first.run_id, "FINISHED", {}, [], {})
    assert isinstance(begin("f1"), Begun), "a run without an output leaves nothing to reuse"
    metrics = [Metric("loss", 0.5, 1, 0), Metric("score", float("nan"), 1, 0)]
    recorder.end(second.run_id, "FINISHED", {}, metrics, {OUTPUT: "what it left"})
    found = begin("f1")
    assert isinstance(found, Found)
    assert (found.run_id, found.artifact_uri, found.output) == (second.run_id, second.artifact_uri, "what it left")
    assert found.metrics == pytest.approx({"loss": 0.5, "score": float("nan")}, nan_ok=True)
    assert isinstance(begin("f2"), Begun)


def test_a_task_run_uses_the_two_calls_where_the_server_takes_them(client: MlflowClient, server: str) -> None:
    assert isinstance(recorder_for(reachable_client()), DirectRecorder)
    reference = Reference(kind="model", uri="models:/m/1", run_id="0" * 32, digest="1" * 64, fingerprint="2" * 64)
    what = TaskToRun("train", "train", "3" * 64, {"seed": 1}, {"data": [reference]}, session="a-session")
    run = TaskRun.find_or_start(what)
    assert isinstance(run, TaskRun)
    run.log_metrics({"loss": 1.0}, 3)
    run.finish(reference, {"loss": 2.0})
    kept = client.get_run(run.run_id)
    assert (kept.info.status, kept.data.params, kept.data.tags["dlg_ml.session"]) == (
        "FINISHED",
        {"seed": "1"},
        "a-session",
    )


def test_an_unknown_run_is_refused_in_mlflows_words(server: str) -> None:
    with pytest.raises(MlflowException, match="no active run"):
        DirectRecorder(server).end("0" * 32, "FINISHED", {}, [], {})
    with pytest.raises(MlflowException, match="no run 0000"):
        DirectRecorder(server).tag("0" * 32, {"a": "b"})


def test_a_server_that_went_away_is_named(monkeypatch: pytest.MonkeyPatch, experiment: str) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("dlg_ml_tasks.tracking.recording._pools", {})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(TrackingUnreachable, match=f"127.0.0.1:{port} went away"):
        DirectRecorder(f"http://127.0.0.1:{port}").begin(_beginning(experiment))
