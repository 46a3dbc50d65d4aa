"""The tracking server: a client that knows at once whether it answers, and the experiment everything goes to."""

from __future__ import annotations

import os

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking import get_tracking_uri

from dlg_ml_tasks.tracking.errors import TrackingUnreachable

EXPERIMENT = "DLG_ML_EXPERIMENT"
"""Environment variable with the experiment's name."""


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
