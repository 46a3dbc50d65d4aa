"""Sessions: the parent run that stands for one deployed graph, and the task runs that belong to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Run

from dlg_ml_tasks.tracking.store import experiment_id, reachable_client
from dlg_ml_tasks.tracking.tags import KIND, NODE, PROGRESS, REUSED, SESSION, TASK


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


def session_run(client: MlflowClient, session: str) -> str:
    """Id of the parent run of a session, created by whichever task comes first.

    Tasks of a graph start at the same time on several machines and MLflow cannot choose a run's id: the oldest run with the
    session's tag wins, and a task that lost deletes its own.
    """
    existing = _session_runs(client, session)
    if existing:
        return existing[0]
    own = client.create_run(
        experiment_id(client), run_name=session, tags={SESSION: session, KIND: "session"}
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


def _session_runs(client: MlflowClient, session: str) -> list[str]:
    runs = client.search_runs(
        [experiment_id(client)],
        f"tags.`{SESSION}` = '{_quoted(session)}' and tags.`{KIND}` = 'session'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return [run.info.run_id for run in runs]


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
