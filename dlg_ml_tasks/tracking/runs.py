"""Task runs: one MLflow run per task, made with MlflowClient and an explicit run id.

The fluent API's active run is process-wide state; the engine calls tasks from threads, so it is never used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dlg_ml_tasks.tracking.artifacts import NgasArtifactRepository
from dlg_ml_tasks.tracking.files import artifact_path, hash_files
from dlg_ml_tasks.tracking.recording import Beginning, Begun, Found, Input, Recorder
from dlg_ml_tasks.tracking.reference import Reference, digest_of
from dlg_ml_tasks.tracking.sessions import session_run
from dlg_ml_tasks.tracking.store import experiment_id, reachable_client, recorder_for, remember_artifact_uri
from dlg_ml_tasks.tracking.tags import (
    CLUSTER,
    ERROR,
    FINGERPRINT,
    INPUTS,
    NODE,
    NOTE,
    OUTPUT,
    PARENT,
    PROGRESS,
    SESSION,
    TASK,
)

_PROGRESS_INTERVAL = 1.0
"""Seconds between two progress tags: each costs one call to the tracking server."""

_MAX_TAG = 7900
_MAX_PARAM = 5900


@dataclass(frozen=True)
class TaskToRun:
    """What a run says of its task from the beginning: the task's name, and its own in the graph; tags are further ones."""

    task: str
    node: str
    fingerprint: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[Reference]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None


@dataclass(frozen=True)
class FinishedRun:
    """A finished run whose output still exists; `seconds` is its duration."""

    run_id: str
    reference: Reference
    seconds: float
    metrics: Mapping[str, float]


class TaskRun:
    """A task's MLflow run while the task works. Thread safe as far as MlflowClient is."""

    def __init__(
        self,
        client: MlflowClient,
        recorder: Recorder,
        begun: Begun,
        params: Mapping[str, Any],
        *,
        is_new: bool = True,
    ) -> None:
        self.client = client
        self.run_id = begun.run_id
        self._recorder = recorder
        self._is_new = is_new
        # Sent with whatever is sent next: every call costs the server as much as a small task's work.
        self._unsent = {name: _short(_text(value), _MAX_PARAM) for name, value in params.items()}
        # Made here once: MLflow's client would ask the server for the run first.
        self._repository = get_artifact_repository(begun.artifact_uri)
        remember_artifact_uri(begun.run_id, begun.artifact_uri)
        # A task that is done within the interval needs no progress.
        self._last_progress = time.monotonic()

    @classmethod
    def start(cls, what: TaskToRun) -> TaskRun:
        """Create the run with its tags and input references; the parameters follow with the first progress or at the end."""
        client = reachable_client()
        recorder = recorder_for(client)
        return cls(client, recorder, recorder.begin(_beginning(client, what)), what.params)

    @classmethod
    def find_or_start(cls, what: TaskToRun) -> TaskRun | FinishedRun:
        """The finished run with the task's fingerprint, see `find_finished`; where there is none, `start` one."""
        client = reachable_client()
        recorder = recorder_for(client)
        beginning = _beginning(client, what)
        begun = recorder.begin_unless_finished(beginning, what.fingerprint)
        if isinstance(begun, Begun):
            return cls(client, recorder, begun, what.params)
        found = (begun and _if_kept(client, begun)) or find_finished(what.fingerprint)
        return found or cls(client, recorder, recorder.begin(beginning), what.params)

    @classmethod
    def take_up(cls, run_id: str) -> TaskRun:
        """A run that another process began, to do its work here."""
        client = reachable_client()
        begun = Begun(run_id, client.get_run(run_id).info.artifact_uri)
        return cls(client, recorder_for(client), begun, {}, is_new=False)

    def go_on(self) -> None:
        """Set the run to RUNNING again: its work goes on after it was stopped."""
        self.client.update_run(self.run_id, status="RUNNING")

    def has_ended(self) -> bool:
        """Whether the run has its final status, given by any process."""
        return RunStatus.is_terminated(RunStatus.from_string(self.client.get_run(self.run_id).info.status))

    def progress(self, text: str) -> None:
        """Say how far the task is; kept as a tag that followers of the session read. Rate limited."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self.set_tags({PROGRESS: text})

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, tags: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Log metrics of one step, and set tags, in one call."""
        self._log(metrics, tags, step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags in one call."""
        self._log({}, tags)

    def log_file(self, local: Path, directory: str | None = None) -> None:
        """Store one file among the run's artifacts."""
        self._repository.log_artifact(str(local), directory)

    def log_folder(self, local: Path) -> None:
        """Store everything in a folder at the top of the run's artifacts, in one go; of a new run the names must be new."""
        self._store_new(local, None)

    def log_files(self, local: Path, path: str, fingerprint: str) -> Reference:
        """Store a folder as the run's artifact `path`, which must be new, and return the reference to it.

        If the upload fails, what arrived is deleted again before the error leaves.
        """
        digest = digest_of(hash_files(local))
        try:
            self._store_new(local, path)
        except BaseException:
            self._repository.delete_artifacts(path)
            raise
        return Reference(
            kind="files", uri=f"runs:/{self.run_id}/{path}", run_id=self.run_id, digest=digest, fingerprint=fingerprint
        )

    def _store_new(self, local: Path, path: str | None) -> None:
        if self._is_new and isinstance(self._repository, NgasArtifactRepository):
            self._repository.log_new_artifacts(local, path, self.run_id)
        else:
            self._repository.log_artifacts(str(local), path)

    def finish(self, output: Reference, metrics: Mapping[str, float] | None = None) -> None:
        """Record the output and the last metrics, and end the run as FINISHED: from here on the run can be reused."""
        self._end("FINISHED", metrics or {}, {OUTPUT: output.model_dump_json()})

    def fail(self, error: str) -> None:
        """End the run as FAILED; `error` (the traceback) is kept as tag and note."""
        self._end("FAILED", {}, {ERROR: error[-_MAX_TAG:], NOTE: f"```\n{error[-_MAX_TAG:]}\n```"})

    def kill(self) -> None:
        """End the run as KILLED."""
        self._end("KILLED", {}, {})

    def _log(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        params, self._unsent = self._unsent, {}
        self.client.log_batch(
            self.run_id,
            params=[Param(name, value) for name, value in params.items()],
            metrics=_metrics(metrics, step),
            tags=[RunTag(key, _short(value, _MAX_TAG)) for key, value in tags.items()],
        )

    def _end(self, status: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        params, self._unsent = self._unsent, {}
        short = {key: _short(value, _MAX_TAG) for key, value in tags.items()}
        self._recorder.end(self.run_id, status, params, _metrics(metrics), short)


def end_run(run_id: str, status: str) -> None:
    """End a run that its own process could not end (it was killed). A run that has ended already stays as it is."""
    client = reachable_client()
    if not RunStatus.is_terminated(RunStatus.from_string(client.get_run(run_id).info.status)):
        client.set_terminated(run_id, status)


def get_run(run_id: str) -> Run:
    """A run by its id. Raises LookupError if there is none."""
    try:
        return reachable_client().get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise LookupError(f"there is no run {run_id!r} at this tracking server") from error
        raise


def find_finished(fingerprint: str) -> FinishedRun | None:
    """The newest FINISHED run with this fingerprint whose output still exists."""
    client = reachable_client()
    finished = _with_fingerprint(client, fingerprint, "attributes.status = 'FINISHED'")
    left = (_found(run) for run in finished if OUTPUT in run.data.tags)
    return next(filter(None, (_if_kept(client, found) for found in left)), None)


def find_output(run_id: str) -> Reference:
    """The reference that a finished run left. Raises LookupError if it left none."""
    tags = reachable_client().get_run(run_id).data.tags
    if OUTPUT not in tags:
        raise LookupError(f"run {run_id} is no finished task run")
    return Reference.model_validate_json(tags[OUTPUT])


def find_unfinished(fingerprint: str) -> Iterable[str]:
    """Ids of runs with this fingerprint that did not finish, newest first: their checkpoints may be used."""
    client = reachable_client()
    return [run.info.run_id for run in _with_fingerprint(client, fingerprint, "attributes.status != 'FINISHED'")]


def find_on_cluster(fingerprint: str) -> Sequence[Run]:
    """Runs with this fingerprint, newest first, begun for a cluster to work on, that have neither finished nor failed.

    Also of status KILLED: who waited for such a run may have been gone, and its work not.
    """
    client = reachable_client()
    condition = f"tags.`{CLUSTER}` != '' and attributes.status != 'FINISHED' and attributes.status != 'FAILED'"
    return _with_fingerprint(client, fingerprint, condition)


class FollowerRun(TaskRun):
    """A run that several processes work on, as all of them but the first see it: the first one speaks for all."""

    def log_file(self, local: Path, directory: str | None = None) -> None:
        """Nothing: the first process has it, too."""

    def log_folder(self, local: Path) -> None:
        """Nothing: the first process has it, too."""

    def finish(self, output: Reference, metrics: Mapping[str, float] | None = None) -> None:
        """Nothing: the first process ends the run."""

    def kill(self) -> None:
        """Nothing: the first process ends the run."""

    def fail(self, error: str) -> None:
        """End the run as FAILED all the same: the first process learns only that this one is gone."""
        if not self.has_ended():
            tags = {ERROR: error[-_MAX_TAG:], NOTE: f"```\n{error[-_MAX_TAG:]}\n```"}
            self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            self.client.set_terminated(self.run_id, "FAILED")

    def _log(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        pass


def _found(run: Run) -> Found:
    info = run.info
    return Found(
        info.run_id, info.artifact_uri, info.start_time, info.end_time, run.data.tags[OUTPUT], run.data.metrics
    )


def _if_kept(client: MlflowClient, found: Found) -> FinishedRun | None:
    reference = Reference.model_validate_json(found.output)
    seconds = (found.end_time - found.start_time) / 1000
    return FinishedRun(found.run_id, reference, seconds, found.metrics) if _exists(client, found, reference) else None


def _exists(client: MlflowClient, run: Found, reference: Reference) -> bool:
    if reference.kind == "files":
        # A task may hand on what another one made, as the gate does.
        if reference.run_id != run.run_id:
            return bool(client.list_artifacts(reference.run_id, artifact_path(reference)))
        return bool(get_artifact_repository(run.artifact_uri).list_artifacts(artifact_path(reference)))
    name, version = reference.uri.removeprefix("models:/").split("/")
    try:
        client.get_model_version(name, version)
    except MlflowException:
        return False
    return True


def _with_fingerprint(client: MlflowClient, fingerprint: str, condition: str) -> Sequence[Run]:
    return list(
        client.search_runs(
            [experiment_id(client)],
            f"tags.`{FINGERPRINT}` = '{fingerprint}' and {condition}",
            order_by=["attributes.start_time DESC"],
        )
    )


def _beginning(client: MlflowClient, what: TaskToRun) -> Beginning:
    uris = {port: [ref.uri for ref in refs] for port, refs in what.inputs.items()}
    all_tags = {
        TASK: what.task,
        NODE: what.node,
        FINGERPRINT: what.fingerprint,
        INPUTS: _short(json.dumps(uris), _MAX_TAG),
        **what.tags,
    }
    if what.session:
        all_tags |= {SESSION: what.session, PARENT: session_run(client, what.session)}
    datasets = [
        # MLflow keeps 36 characters of a dataset's digest.
        Input(f"{port}-{index}", ref.digest[:32], ref.kind, json.dumps({"uri": ref.uri}), port)
        for port, refs in what.inputs.items()
        for index, ref in enumerate(refs)
    ]
    return Beginning(experiment_id(client), what.node, all_tags, datasets)


def _metrics(values: Mapping[str, float], step: int = 0) -> list[Metric]:
    stamp = int(time.time() * 1000)
    return [Metric(key, float(value), stamp, step) for key, value in values.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
