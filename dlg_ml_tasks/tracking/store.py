"""The tracking server: a client that knows at once whether it answers, and the experiment everything goes to."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import get_tracking_uri
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import MlflowHostCreds, http_request
from requests import codes

from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.recording import HEALTH, DirectRecorder, MlflowRecorder, Recorder

EXPERIMENT = "DLG_ML_EXPERIMENT"
"""Environment variable with the experiment's name."""

_TRUSTED_FOR = 10.0
"""Seconds after an answer in which the server is not looked for again: a task makes a dozen calls within one."""

_answered: dict[str, float] = {}
_takes_directly: dict[str, bool] = {}
_experiments: dict[tuple[str, str], str] = {}
_artifact_uris: dict[tuple[str, str], tuple[str, str]] = {}
"""By server and experiment, what stands before and after a run's id."""


def reachable_client() -> MlflowClient:
    """A client of the configured tracking server, after a quick look that it answers (MLflow itself would retry for minutes).

    Raises TrackingUnreachable.
    """
    uri = get_tracking_uri()
    lately = time.monotonic() - _answered.get(uri, -_TRUSTED_FOR) < _TRUSTED_FOR
    if uri.startswith(("http://", "https://")) and not lately:
        _takes_directly[uri] = _answers(uri, HEALTH)
        if not _takes_directly[uri] and not _answers(uri, "/health"):
            raise TrackingUnreachable(f"what answers at {_without_login(uri)} is no MLflow server")
        _answered[uri] = time.monotonic()
    return MlflowClient()


def recorder_for(client: MlflowClient) -> Recorder:
    """How runs are told to the server of a `reachable_client`."""
    uri = str(client.tracking_uri)
    return DirectRecorder(uri) if _takes_directly.get(uri, False) and _is_open(uri) else MlflowRecorder(client)


def _is_open(uri: str) -> bool:
    """Whether anybody may ask the server. A login, or a certificate of its own, is the business of MLflow's client."""
    return vars(get_default_host_creds(uri)) == vars(MlflowHostCreds(uri)) and "@" not in urlsplit(uri).netloc


def _answers(uri: str, path: str) -> bool:
    """Whether the server knows a path. Raises TrackingUnreachable for any other answer than yes and no."""
    shown = _without_login(uri)
    try:
        # With login and certificates as MLflow's client has them, and without its patience.
        response = http_request(
            get_default_host_creds(uri), path, "GET", max_retries=0, timeout=10, raise_on_status=False
        )
    except MlflowException as error:
        raise TrackingUnreachable(
            f"the tracking server at {shown} does not answer ({type(error.__context__).__name__}); start it with 'dlg-ml up' "
            "or set MLFLOW_TRACKING_URI to one that runs"
        ) from error
    if response.status_code in (codes.unauthorized, codes.forbidden):
        raise TrackingUnreachable(
            f"the tracking server at {shown} does not let you in (HTTP {response.status_code}); set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD"
        )
    if response.status_code not in (codes.ok, codes.not_found):
        raise TrackingUnreachable(
            f"the tracking server at {shown} answers with HTTP {response.status_code}; look into its log"
        )
    return bool(response.status_code == codes.ok)


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


def remember_artifact_uri(run_id: str, uri: str) -> None:
    """Learn from a run of the experiment where its runs' artifacts are."""
    ahead, found, behind = uri.partition(run_id)
    if found:
        _artifact_uris[get_tracking_uri(), experiment_name()] = (ahead, behind)


def usual_artifact_uri(run_id: str) -> str | None:
    """Where the artifacts of a run are if it belongs to the experiment, as far as this process has learnt."""
    parts = _artifact_uris.get((get_tracking_uri(), experiment_name()))
    return run_id.join(parts) if parts else None


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
