"""Sessions: the parent run that stands for one deployed graph, and the task runs that belong to it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import get_tracking_uri

from dlg_ml_tasks.tracking.store import experiment_id, experiment_name, reachable_client, recorder_for, run_url
from dlg_ml_tasks.tracking.tags import CLUSTER, KIND, NODE, PROGRESS, REUSED, SESSION, STOP, TASK

_SEVERITY = {"FINISHED": 0, "KILLED": 1, "FAILED": 2}

_known: dict[tuple[str, str, str], str] = {}

_stored: set[tuple[str, str]] = set()
"""Parent runs, and the names of what is stored with them."""

_LATECOMERS = 0.5
"""Seconds between a run's start and its being seen by others, at most."""

_IDS_AT_ONCE = 100
"""Run ids in one search: a filter's length is limited."""


@dataclass(frozen=True)
class RunInfo:
    """A task's run as a session sees it; `run_url` is its page, empty where MLflow is no server; `seconds` is the duration so far,
    or of the finished run.
    """

    run_id: str
    run_url: str
    task: str
    node: str
    status: str
    reused: bool
    seconds: float
    progress: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionInfo:
    """A session's parent run; `started` is in seconds since 1970."""

    session: str
    run_id: str
    status: str
    started: float


def begin_session(session: str) -> str:
    """Create the parent run of a session that nobody else knows yet, and return its id."""
    return _create(reachable_client(), session)


def forget_session(session: str) -> None:
    """Delete the parent run of a session that was not deployed after all."""
    client = reachable_client()
    for run_id in _session_runs(client, session):
        client.delete_run(run_id)


def session_run(client: MlflowClient, session: str) -> str:
    """Id of the parent run of a session; where the graph was not submitted by `begin_session`, the first task creates it.

    Tasks of a graph start at the same time on several machines and MLflow cannot choose a run's id: the oldest run with the
    session's tag wins, and a task that lost deletes its own.
    """
    if known := known_session_run(session):
        return known
    existing = _session_runs(client, session)
    if existing:
        remember_session_run(session, existing[0])
        return existing[0]
    own = _create(client, session)
    # A run's start is what its creator's clock said before the server stored it, so an older one may still appear.
    time.sleep(_LATECOMERS)
    winner = _session_runs(client, session)[0]
    if winner != own:
        client.delete_run(own)
    remember_session_run(session, winner)
    return winner


def known_session_run(session: str) -> str | None:
    """The id of a session's parent run if this process has asked for it before."""
    return _known.get((get_tracking_uri(), experiment_name(), session))


def remember_session_run(session: str, run_id: str) -> None:
    """Save this process the search for a session's parent run, which another one has done."""
    _known[get_tracking_uri(), experiment_name(), session] = run_id


def store_once(session: str, name: str, text: str) -> str:
    """Keep a text among the artifacts of a session's parent run, where it is the same for all its tasks; returns its URI."""
    client = reachable_client()
    run_id = session_run(client, session)
    if (run_id, name) not in _stored:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(text)
            get_artifact_repository(client.get_run(run_id).info.artifact_uri).log_artifact(str(file))
        _stored.add((run_id, name))
    return f"runs:/{run_id}/{name}"


def stored(session: str) -> list[str]:
    """What this process knows to be stored (`store_once`) with a session."""
    return sorted(name for run_id, name in _stored if run_id == known_session_run(session))


def remember_stored(session: str, names: Iterable[str]) -> None:
    """Save this process the storing of what another one has stored with a session."""
    run_id = known_session_run(session)
    if run_id:
        _stored.update((run_id, name) for name in names)


def _create(client: MlflowClient, session: str) -> str:
    tags = {SESSION: session, KIND: "session"}
    return str(client.create_run(experiment_id(client), run_name=session, tags=tags).info.run_id)


def end_session(session: str, status: str) -> None:
    """Give the session's parent run its final status: FINISHED, FAILED or KILLED.

    Task runs that are still RUNNING are KILLED: their processes died with a machine, or while nobody could be told. What a cluster
    works on goes on, and the graph finds it when it is submitted again; if the session was killed, it is asked to stop.
    """
    client = reachable_client()
    for run in _search(client, f"{_of(session)} and tags.`{TASK}` != '' and attributes.status = 'RUNNING'"):
        if CLUSTER in run.data.tags:
            if status != "KILLED":
                continue
            client.set_tag(run.info.run_id, STOP, "cancelled")
        client.set_terminated(run.info.run_id, "KILLED")
    for run_id in _session_runs(client, session):
        if client.get_run(run_id).info.status != status:  # looking at a session again must not move its end
            client.set_terminated(run_id, status)


def settle_session(session: str, status: str) -> None:
    """Say how one node's part of a session ended; the worst part decides, and FINISHED waits until no task runs anywhere.

    A session that nobody follows gets its final status in this way.
    """
    client = reachable_client()
    runs = _search(client, f"{_of(session)} and attributes.status = 'RUNNING'")
    others_run = any(TASK in run.data.tags for run in runs)
    for run_id in _session_runs(client, session):
        known = _SEVERITY.get(client.get_run(run_id).info.status, -1)
        if known < _SEVERITY[status] and not (status == "FINISHED" and others_run):
            client.set_terminated(run_id, status)


def recent_sessions(limit: int) -> list[SessionInfo]:
    """The sessions that began last, newest first."""
    client = reachable_client()
    runs = client.search_runs(
        [experiment_id(client)],
        f"tags.`{KIND}` = 'session'",
        order_by=["attributes.start_time DESC"],
        max_results=limit,
    )
    return [
        SessionInfo(run.data.tags[SESSION], run.info.run_id, run.info.status, run.info.start_time / 1000)
        for run in runs
    ]


def session_runs(session: str) -> list[RunInfo]:
    """The task runs of a session, oldest first, then the runs that it reused."""
    return list(SessionRuns(session).update().values())


class SessionRuns:
    """Keeps up with the task runs of a session, reused ones included, and asks only for what has changed.

    A session may have thousands of tasks, and a search for all their runs takes the tracking server a second.
    """

    def __init__(self, session: str) -> None:
        self._of = _of(session)
        self._session = session
        self._infos: dict[str, RunInfo] = {}
        self._ended_until = 0

    def update(self) -> dict[str, RunInfo]:
        """All runs by the task's name in the graph."""
        client = reachable_client()
        began = int(time.time() * 1000)
        tasks = f"{self._of} and tags.`{TASK}` != ''"
        ended = _search(client, f"{tasks} and attributes.end_time >= {self._ended_until}")
        running = _search(client, f"{tasks} and attributes.status = 'RUNNING'")
        for run in sorted((*ended, *running), key=lambda run: int(run.info.start_time)):
            info = _info(run)
            self._infos[info.node] = info
        self._add_reused(client)
        # Clocks of the machines that end runs may differ.
        self._ended_until = began - 10_000
        return dict(self._infos)

    def _add_reused(self, client: MlflowClient) -> None:
        nodes: dict[str, list[str]] = {}
        for parent in _session_runs(client, self._session):
            for tag, run_id in client.get_run(parent).data.tags.items():
                node = tag.removeprefix(REUSED)
                if node != tag and node not in self._infos:
                    nodes.setdefault(run_id, []).append(node)
        for run in _by_id(client, nodes):
            for node in nodes[run.info.run_id]:
                self._infos[node] = _info(run, node=node, reused=True)


def record_reuse(session: str, node: str, run_id: str) -> None:
    """Note in the session's parent run that `node` reused an earlier run."""
    client = reachable_client()
    recorder_for(client).tag(session_run(client, session), {REUSED + node: run_id})


def _session_runs(client: MlflowClient, session: str) -> list[str]:
    runs = client.search_runs(
        [experiment_id(client)],
        f"{_of(session)} and tags.`{KIND}` = 'session'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return [run.info.run_id for run in runs]


def _search(client: MlflowClient, condition: str) -> list[Run]:
    """All runs of the experiment that a filter finds; MLflow gives a thousand at a time."""
    experiment = experiment_id(client)
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], condition, order_by=["attributes.start_time ASC"], page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _by_id(client: MlflowClient, run_ids: Iterable[str]) -> Iterator[Run]:
    ids = sorted(run_ids)
    for first in range(0, len(ids), _IDS_AT_ONCE):
        chosen = ", ".join(f"'{run_id}'" for run_id in ids[first : first + _IDS_AT_ONCE])
        yield from client.search_runs([experiment_id(client)], f"attributes.run_id IN ({chosen})")


def _of(session: str) -> str:
    return f"tags.`{SESSION}` = '{_quoted(session)}'"


def _info(run: Run, node: str | None = None, reused: bool = False) -> RunInfo:
    tags = run.data.tags
    end = run.info.end_time or int(time.time() * 1000)
    return RunInfo(
        run_id=run.info.run_id,
        run_url=run_url(run),
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
