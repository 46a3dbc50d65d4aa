"""How a task's run is told to the tracking server: by MLflow's own calls, or by three where the server takes them; see `server`."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Protocol

import urllib3
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import RestException

from dlg_ml_tasks.tracking.errors import TrackingUnreachable

BEGIN = "/api/dlg-ml/1/runs/begin"
TAG = "/api/dlg-ml/1/runs/tag"
END = "/api/dlg-ml/1/runs/end"
HEALTH = "/api/dlg-ml/1/health"

_pools: dict[int, urllib3.PoolManager] = {}
"""Connections by process: a forked one must not use its parent's."""


@dataclass(frozen=True)
class Input:
    """A data set that a run read: MLflow's fields of one, and the port by which it came."""

    name: str
    digest: str
    source_type: str
    source: str
    context: str


@dataclass(frozen=True)
class Beginning:
    """What is known of a run when it begins."""

    experiment_id: str
    name: str
    tags: Mapping[str, str]
    inputs: Sequence[Input]


@dataclass(frozen=True)
class Begun:
    """A run that has begun."""

    run_id: str
    artifact_uri: str


@dataclass(frozen=True)
class Found:
    """A finished run: what it left, as a Reference in JSON, its last metrics, and when it began and ended (ms since 1970)."""

    run_id: str
    artifact_uri: str
    start_time: int
    end_time: int
    output: str
    metrics: Mapping[str, float]


class Recorder(Protocol):
    """Begins, tags and ends runs on a tracking server."""

    def begin(self, run: Beginning) -> Begun:
        """Begin a run."""

    def begin_unless_finished(self, run: Beginning, fingerprint: str) -> Begun | Found | None:
        """Begin a run, or find the newest finished one with the fingerprint; None where that takes more than one call."""

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""

    def end(
        self, run_id: str, status: str, params: Mapping[str, str], metrics: Sequence[Metric], tags: Mapping[str, str]
    ) -> None:
        """Add what is not yet told, and end the run."""


class MlflowRecorder:
    """Records by MLflow's own calls, as every server takes them."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def begin(self, run: Beginning) -> Begun:
        info = self._client.create_run(run.experiment_id, run_name=run.name, tags=dict(run.tags)).info
        datasets = [
            DatasetInput(
                Dataset(each.name, each.digest, each.source_type, each.source),
                [InputTag("mlflow.data.context", each.context)],
            )
            for each in run.inputs
        ]
        if datasets:
            self._client.log_inputs(info.run_id, datasets)
        return Begun(info.run_id, info.artifact_uri)

    def begin_unless_finished(self, run: Beginning, fingerprint: str) -> Begun | Found | None:
        return None

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def end(
        self, run_id: str, status: str, params: Mapping[str, str], metrics: Sequence[Metric], tags: Mapping[str, str]
    ) -> None:
        self._client.log_batch(
            run_id,
            params=[Param(key, value) for key, value in params.items()],
            metrics=list(metrics),
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._client.set_terminated(run_id, status)


class DirectRecorder:
    """Records by the three calls of a server that takes them, at its URL."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def begin(self, run: Beginning) -> Begun:
        question = _question(run)
        return Begun(question["run_id"], self._ask(BEGIN, question)["artifact_uri"])

    def begin_unless_finished(self, run: Beginning, fingerprint: str) -> Begun | Found | None:
        question = _question(run)
        answer = self._ask(BEGIN, {**question, "unless_finished": fingerprint})
        return Found(**answer["found"]) if answer["found"] else Begun(question["run_id"], answer["artifact_uri"])

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._ask(TAG, {"run_id": run_id, "tags": dict(tags)})

    def end(
        self, run_id: str, status: str, params: Mapping[str, str], metrics: Sequence[Metric], tags: Mapping[str, str]
    ) -> None:
        told = [
            {"key": each.key, "value": each.value, "timestamp": each.timestamp, "step": each.step} for each in metrics
        ]
        parts = {"params": dict(params), "metrics": told, "tags": dict(tags)}
        self._ask(END, {"run_id": run_id, "status": status, "end_time": _now(), **parts})

    def _ask(self, path: str, question: Mapping[str, Any]) -> Any:
        body = json.dumps(question)
        try:
            response = _pool().request(
                "POST", self._uri + path, body=body, headers={"Content-Type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            raise TrackingUnreachable(
                f"the tracking server at {self._uri} went away ({type(error).__name__}); start it again and repeat the task"
            ) from error
        answer = json.loads(response.data)
        if response.status != HTTPStatus.OK:
            raise RestException(answer)
        return answer


def _question(run: Beginning) -> dict[str, Any]:
    return {
        "run_id": uuid.uuid4().hex,
        "experiment_id": run.experiment_id,
        "name": run.name,
        "user_id": "unknown",  # as MLflow's client says
        "start_time": _now(),
        "tags": {"mlflow.runName": run.name, **run.tags},
        "inputs": [asdict(each) for each in run.inputs],
        "unless_finished": None,
    }


def _pool() -> urllib3.PoolManager:
    if os.getpid() not in _pools:
        _pools.clear()
        # As patient as MLflow's client. All calls may be repeated: the second time they change nothing.
        patience = urllib3.Retry(
            total=MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(),
            backoff_factor=MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
            allowed_methods=None,
            status_forcelist=(502, 503, 504),
        )
        _pools[os.getpid()] = urllib3.PoolManager(retries=patience, timeout=MLFLOW_HTTP_REQUEST_TIMEOUT.get())
    return _pools[os.getpid()]


def _now() -> int:
    return int(time.time() * 1000)
