"""The tracking server: a client that knows at once whether it answers, and the experiment everything goes to."""

from __future__ import annotations

import os
import time

import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import get_tracking_uri

from dlg_ml_tasks.tracking.errors import TrackingUnreachable

EXPERIMENT = "DLG_ML_EXPERIMENT"
"""Environment variable with the experiment's name."""

_TRUSTED_FOR = 10.0
"""Seconds after an answer in which the server is not looked for again: a task makes a dozen calls within one."""

_answered: dict[str, float] = {}
_experiments: dict[tuple[str, str], str] = {}


def reachable_client() -> MlflowClient:
    """A client of the configured tracking server, after a quick look that it answers (MLflow itself would retry for minutes).

    Raises TrackingUnreachable.
    """
    uri = get_tracking_uri()
    lately = time.monotonic() - _answered.get(uri, -_TRUSTED_FOR) < _TRUSTED_FOR
    if uri.startswith(("http://", "https://")) and not lately:
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=10).raise_for_status()
        except requests.RequestException as error:
            raise TrackingUnreachable(
                f"the tracking server at {_without_login(uri)} does not answer ({type(error).__name__}); start it with 'dlg-ml up' "
                "or set MLFLOW_TRACKING_URI to one that runs"
            ) from error
        _answered[uri] = time.monotonic()
    return MlflowClient()


def experiment_id(client: MlflowClient) -> str:
    """Id of the experiment named by DLG_ML_EXPERIMENT (default dlg-ml-tasks), created if missing."""
    name = experiment_name()
    store = (str(client.tracking_uri), name)
    if store not in _experiments:
        _experiments[store] = _find_experiment(client, name)
    return _experiments[store]


def known_experiment() -> str | None:
    """The experiment's id if this process has asked for it before."""
    return _experiments.get((get_tracking_uri(), experiment_name()))


def remember_experiment(experiment: str) -> None:
    """Save this process the search for the experiment, which another one has done."""
    _experiments[get_tracking_uri(), experiment_name()] = experiment


def run_url(run: Run) -> str:
    """The page of a run in the tracking server's web interface; empty where the tracking store is no server."""
    uri = _without_login(get_tracking_uri())
    is_server = uri.startswith(("http://", "https://"))
    return f"{uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if is_server else ""


def _without_login(uri: str) -> str:
    scheme, separator, rest = uri.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return "".join((scheme, separator, host.rpartition("@")[2], slash, path))


def experiment_name() -> str:
    """The name of the experiment that everything goes to."""
    return os.environ.get(EXPERIMENT, "dlg-ml-tasks")


def _find_experiment(client: MlflowClient, name: str) -> str:
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
