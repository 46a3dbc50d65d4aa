"""Task runs: one MLflow run per task, made with MlflowClient and an explicit run id.

The fluent API's active run is process-wide state; the engine calls tasks from threads, so it is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import get_tracking_uri

from dlg_ml_tasks.tracking.errors import ContentChanged, TrackingUnreachable
from dlg_ml_tasks.tracking.reference import Reference, digest_of

EXPERIMENT = "DLG_ML_EXPERIMENT"
"""Environment variable with the experiment's name."""

TASK = "dlg_ml.task"
NODE = "dlg_ml.node"
SESSION = "dlg_ml.session"
FINGERPRINT = "dlg_ml.fingerprint"
PROGRESS = "dlg_ml.progress"
OUTPUT = "dlg_ml.output"
REUSED = "dlg_ml.reused."
PARENT = "mlflow.parentRunId"

_PROGRESS_INTERVAL = 1.0
"""Seconds between two progress tags: each costs one call to the tracking server."""

_MAX_TAG = 7900
_MAX_PARAM = 5900


@dataclass(frozen=True)
class RunInfo:
    """A task's run as a session sees it; `seconds` is the duration so far, or of the finished run."""

    run_id: str
    task: str
    node: str
    status: str
    reused: bool
    seconds: float
    progress: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class TaskRun:
    """A task's MLflow run while the task works. Thread safe as far as MlflowClient is."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._last_progress = 0.0

    @classmethod
    def start(
        cls,
        task: str,
        node: str,
        fingerprint: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, Sequence[Reference]],
        tags: Mapping[str, str],
        session: str | None,
    ) -> TaskRun:
        """Create the run with its parameters, tags and input references."""
        client = reachable_client()
        experiment = experiment_id(client)
        all_tags = {
            TASK: task,
            NODE: node,
            FINGERPRINT: fingerprint,
            "dlg_ml.inputs": _short(
                json.dumps({port: [ref.uri for ref in refs] for port, refs in inputs.items()}), _MAX_TAG
            ),
            **tags,
        }
        if session:
            all_tags |= {SESSION: session, PARENT: session_run(client, session)}
        run = client.create_run(experiment, run_name=node, tags=all_tags)
        this = cls(client, run.info.run_id)
        client.log_batch(
            this.run_id,
            params=[Param(name, _short(_text(value), _MAX_PARAM)) for name, value in params.items()],
        )
        datasets = [
            DatasetInput(
                # MLflow keeps 36 characters of a dataset's digest.
                Dataset(f"{port}-{index}", ref.digest[:32], ref.kind, json.dumps({"uri": ref.uri})),
                [InputTag("mlflow.data.context", port)],
            )
            for port, refs in inputs.items()
            for index, ref in enumerate(refs)
        ]
        if datasets:
            client.log_inputs(this.run_id, datasets)
        return this

    def progress(self, text: str) -> None:
        """Say how far the task is; kept as a tag that followers of the session read. Rate limited."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self.client.set_tag(self.run_id, PROGRESS, text)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one step in one call."""
        stamp = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(k, float(v), stamp, step) for k, v in metrics.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags in one call."""
        self.client.log_batch(self.run_id, tags=[RunTag(k, _short(v, _MAX_TAG)) for k, v in tags.items()])

    def log_file(self, local: Path, directory: str | None = None) -> None:
        """Store one file among the run's artifacts."""
        self.client.log_artifact(self.run_id, str(local), directory)

    def log_files(self, local: Path, path: str, fingerprint: str) -> Reference:
        """Store a folder as the run's artifact `path` and return the reference to it.

        If the upload fails, what arrived is deleted again before the error leaves.
        """
        digest = digest_of(hash_files(local))
        try:
            self.client.log_artifacts(self.run_id, str(local), path)
        except BaseException:
            self._delete(path)
            raise
        return Reference(
            kind="files", uri=f"runs:/{self.run_id}/{path}", run_id=self.run_id, digest=digest, fingerprint=fingerprint
        )

    def finish(self, output: Reference) -> None:
        """Record the output and end the run as FINISHED: from here on the run can be reused."""
        self.set_tags({OUTPUT: output.model_dump_json()})
        self.client.set_terminated(self.run_id, "FINISHED")

    def fail(self, error: str) -> None:
        """End the run as FAILED; `error` (the traceback) is kept as tag and note."""
        self.set_tags({"dlg_ml.error": error[-_MAX_TAG:], "mlflow.note.content": f"```\n{error[-_MAX_TAG:]}\n```"})
        self.client.set_terminated(self.run_id, "FAILED")

    def _delete(self, path: str) -> None:
        uri = self.client.get_run(self.run_id).info.artifact_uri
        get_artifact_repository(uri).delete_artifacts(path)


def reachable_client() -> MlflowClient:
    """A client of the configured tracking server, after a quick look that it answers (MLflow itself would retry for minutes).

    Raises TrackingUnreachable.
    """
    uri = get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=10).raise_for_status()
        except requests.RequestException as error:
            raise TrackingUnreachable(
                f"the tracking server at {uri} does not answer ({type(error).__name__}); start it with 'dlg-ml up' or set "
                "MLFLOW_TRACKING_URI to one that runs"
            ) from error
    return MlflowClient()


def experiment_id(client: MlflowClient) -> str:
    """Id of the experiment named by DLG_ML_EXPERIMENT (default dlg-ml-tasks), created if missing."""
    name = os.environ.get(EXPERIMENT, "dlg-ml-tasks")
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Two first tasks of a graph may create it at the same time: the loser takes the winner's.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def session_run(client: MlflowClient, session: str) -> str:
    """Id of the parent run of a session, created by whichever task comes first.

    Tasks of a graph start at the same time on several machines and MLflow cannot choose a run's id: the oldest run with the
    session's tag wins, and a task that lost deletes its own.
    """
    existing = _session_runs(client, session)
    if existing:
        return existing[0]
    own = client.create_run(
        experiment_id(client), run_name=session, tags={SESSION: session, "dlg_ml.kind": "session"}
    ).info.run_id
    winner = _session_runs(client, session)[0]
    if winner != own:
        client.delete_run(own)
    return winner


def end_session(session: str, status: str) -> None:
    """Give the session's parent run its final status: FINISHED, FAILED or KILLED."""
    client = reachable_client()
    for run_id in _session_runs(client, session):
        client.set_terminated(run_id, status)


def end_run(run_id: str, status: str) -> None:
    """End a run that its own process could not end (it was killed). A run that has ended already stays as it is."""
    client = reachable_client()
    if not RunStatus.is_terminated(RunStatus.from_string(client.get_run(run_id).info.status)):
        client.set_terminated(run_id, status)


def session_runs(session: str) -> list[RunInfo]:
    """The task runs of a session, reused ones included, oldest first."""
    client = reachable_client()
    experiment = experiment_id(client)
    children = client.search_runs(
        [experiment],
        f"tags.`{SESSION}` = '{_quoted(session)}' and tags.`{TASK}` != ''",
        order_by=["attributes.start_time ASC"],
    )
    infos = [_info(run) for run in children]
    for parent in _session_runs(client, session):
        for tag, run_id in client.get_run(parent).data.tags.items():
            if tag.startswith(REUSED):
                infos.append(_info(client.get_run(run_id), node=tag.removeprefix(REUSED), reused=True))
    return infos


def record_reuse(session: str, node: str, run_id: str) -> None:
    """Note in the session's parent run that `node` reused an earlier run."""
    client = reachable_client()
    client.set_tag(session_run(client, session), REUSED + node, run_id)


def find_finished(fingerprint: str) -> tuple[Run, Reference] | None:
    """The newest FINISHED run with this fingerprint whose output still exists."""
    client = reachable_client()
    for run in _with_fingerprint(client, fingerprint, "attributes.status = 'FINISHED'"):
        if OUTPUT in run.data.tags:
            reference = Reference.model_validate_json(run.data.tags[OUTPUT])
            if _exists(client, reference):
                return run, reference
    return None


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


def download(reference: Reference, destination: Path) -> Path:
    """Fetch the files that a reference names into the folder `destination` and check them against its digest.

    Raises ContentChanged if they differ, FileNotFoundError if they are gone.
    """
    path = _artifact_path(reference)
    local = download_artifact(reference.run_id, path, destination)
    if local is None:
        raise FileNotFoundError(f"{reference.uri} is no longer in the archive; run the task that made it again")
    found = digest_of(hash_files(local))
    if found != reference.digest:
        raise ContentChanged(f"{reference.uri}: expected content {reference.digest[:12]}…, found {found[:12]}…")
    return local


def download_artifact(run_id: str, path: str, destination: Path) -> Path | None:
    """Fetch a run's artifact (file or folder) below `destination`; None if there is no such artifact."""
    client = reachable_client()
    parent = str(PurePosixPath(path).parent)
    siblings = client.list_artifacts(run_id, None if parent == "." else parent)
    if path not in {info.path for info in siblings}:
        return None
    destination.mkdir(parents=True, exist_ok=True)
    return Path(client.download_artifacts(run_id, path, str(destination)))


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 in hex of every file below `folder` (or of the one file), by path relative to it."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.name if file == folder else file.relative_to(folder).as_posix(): hash_file(file) for file in files}


def hash_file(file: Path) -> str:
    """sha256 of a file in hex."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _artifact_path(reference: Reference) -> str:
    if reference.kind != "files":
        raise ValueError(f"{reference.uri} names a model, not files")
    return reference.uri.removeprefix(f"runs:/{reference.run_id}").strip("/")


def _exists(client: MlflowClient, reference: Reference) -> bool:
    if reference.kind == "files":
        return bool(client.list_artifacts(reference.run_id, _artifact_path(reference)))
    name, version = reference.uri.removeprefix("models:/").split("/")
    try:
        client.get_model_version(name, version)
    except MlflowException:
        return False
    return True


def _session_runs(client: MlflowClient, session: str) -> list[str]:
    runs = client.search_runs(
        [experiment_id(client)],
        f"tags.`{SESSION}` = '{_quoted(session)}' and tags.`dlg_ml.kind` = 'session'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return [run.info.run_id for run in runs]


def _with_fingerprint(client: MlflowClient, fingerprint: str, condition: str) -> Sequence[Run]:
    return list(
        client.search_runs(
            [experiment_id(client)],
            f"tags.`{FINGERPRINT}` = '{fingerprint}' and {condition}",
            order_by=["attributes.start_time DESC"],
        )
    )


def _info(run: Run, node: str | None = None, reused: bool = False) -> RunInfo:
    tags = run.data.tags
    end = run.info.end_time or int(time.time() * 1000)
    return RunInfo(
        run_id=run.info.run_id,
        task=tags.get(TASK, ""),
        node=node or tags.get(NODE, ""),
        status=run.info.status,
        reused=reused,
        seconds=(end - run.info.start_time) / 1000,
        progress=tags.get(PROGRESS, ""),
        metrics=dict(run.data.metrics),
    )


def _quoted(text: str) -> str:
    if "'" in text:
        raise ValueError(f"a session's name must not hold a quote: {text!r}")
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
