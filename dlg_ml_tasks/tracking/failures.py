"""Why tasks of a session failed: the last line of the error that each run keeps."""

from __future__ import annotations

from mlflow.entities import Run

from dlg_ml_tasks.tracking.store import experiment_id, reachable_client
from dlg_ml_tasks.tracking.tags import ERROR, NODE, SESSION, TASK


def failures(session: str) -> dict[str, str]:
    """The session's failed and killed task runs by node name, each with its reason in one line."""
    client = reachable_client()
    of_session = f"tags.`{SESSION}` = '{session}' and tags.`{TASK}` != ''"
    ended_badly = "attributes.status != 'FINISHED' and attributes.status != 'RUNNING'"
    runs = client.search_runs(
        [experiment_id(client)], f"{of_session} and {ended_badly}", order_by=["attributes.start_time ASC"]
    )
    return {run.data.tags.get(NODE, ""): reason_of(run) for run in runs}


def reason_of(run: Run) -> str:
    """Why a run that ended badly did so, in one line."""
    lines = run.data.tags.get(ERROR, "").strip().splitlines()
    if not lines:
        return "its process was killed" if run.info.status == "KILLED" else "no reason was kept"
    kind, _, message = lines[-1].partition(": ")
    return message if message and "." in kind else lines[-1]
