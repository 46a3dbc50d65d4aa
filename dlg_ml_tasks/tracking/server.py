"""The tracking server with three calls more, by which a task's run begins, gets tags and ends in one transaction each; see
`recording`.

MLflow's own interface takes five calls for a task, and its store reads the run, its experiment and its inputs again in each:
10 ms of the one server process per call, most of the time of a survey's thousands of tasks. Here the same rows are written to
MLflow's tables at once. This is an app of ``mlflow server --app-name dlg-ml``, MLflow's own way to extend its server; clients that
meet a server without it use MLflow's calls.
"""

from __future__ import annotations

import json
import math
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import _validate_batch_log_data, _validate_run_id
from sqlalchemy import bindparam, delete, insert, select, update
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dlg_ml_tasks.tracking.recording import BEGIN, END, HEALTH, TAG
from dlg_ml_tasks.tracking.tags import FINGERPRINT, OUTPUT

if TYPE_CHECKING:
    from sqlalchemy import Connection

_RUNS, _TAGS, _PARAMS = models.SqlRun.__table__, models.SqlTag.__table__, models.SqlParam.__table__
_METRICS, _LATEST = models.SqlMetric.__table__, models.SqlLatestMetric.__table__
_DATASETS, _INPUTS, _INPUT_TAGS = models.SqlDataset.__table__, models.SqlInput.__table__, models.SqlInputTag.__table__
_EXPERIMENTS = models.SqlExperiment.__table__

# Made once: SQLAlchemy takes longer to put a statement together than the database to run it.
_FIND_EXPERIMENT = select(_EXPERIMENTS.c.artifact_location, _EXPERIMENTS.c.lifecycle_stage).where(
    _EXPERIMENTS.c.experiment_id == bindparam("experiment_id")
)
_FIND_RUN = select(_RUNS.c.run_uuid).where(_RUNS.c.run_uuid == bindparam("run_id"))
_LEFT = _TAGS.alias()
_FIND_FINISHED = (
    select(_RUNS.c.run_uuid, _RUNS.c.artifact_uri, _RUNS.c.start_time, _RUNS.c.end_time, _LEFT.c.value.label("output"))
    .join(_TAGS, _TAGS.c.run_uuid == _RUNS.c.run_uuid)
    .join(_LEFT, _LEFT.c.run_uuid == _RUNS.c.run_uuid)
    .where(
        _TAGS.c.key == FINGERPRINT,
        _TAGS.c.value == bindparam("fingerprint"),
        _LEFT.c.key == OUTPUT,
        _RUNS.c.experiment_id == bindparam("experiment_id"),
        _RUNS.c.status == "FINISHED",
        _RUNS.c.lifecycle_stage == "active",
    )
    .order_by(_RUNS.c.start_time.desc())
    .limit(1)
)
_FIND_LATEST = select(_LATEST.c.key, _LATEST.c.value, _LATEST.c.is_nan).where(_LATEST.c.run_uuid == bindparam("run_id"))
_FIND_DATASET = select(_DATASETS.c.dataset_uuid).where(
    _DATASETS.c.experiment_id == bindparam("experiment_id"),
    _DATASETS.c.name == bindparam("name"),
    _DATASETS.c.digest == bindparam("digest"),
)
_FIND_METRICS = select(
    _METRICS.c.key, _METRICS.c.timestamp, _METRICS.c.step, _METRICS.c.value, _METRICS.c.is_nan
).where(_METRICS.c.run_uuid == bindparam("run_id"), _METRICS.c.key.in_(bindparam("keys", expanding=True)))
_END_RUN = (
    update(_RUNS)
    .where(_RUNS.c.run_uuid == bindparam("run_id"), _RUNS.c.lifecycle_stage == "active")
    .values(status=bindparam("new_status"), end_time=bindparam("new_end"))
)
_DELETE = {
    table: delete(table).where(
        table.c.run_uuid == bindparam("run_id"), table.c.key.in_(bindparam("keys", expanding=True))
    )
    for table in (_TAGS, _PARAMS, _LATEST)
}
_INSERT = {
    table: insert(table) for table in (_RUNS, _TAGS, _PARAMS, _METRICS, _LATEST, _DATASETS, _INPUTS, _INPUT_TAGS)
}


def create_app() -> Any:
    """MLflow's application (FastAPI) with the three calls; the factory that ``--app-name dlg-ml`` names."""
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", _tune)
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import _get_tracking_store

    # First of all: the last of MLflow's routes takes whatever is left.
    app.router.routes[:0] = [
        Route(HEALTH, lambda _: JSONResponse({}), methods=["GET"]),
        Route(BEGIN, _answering(_get_tracking_store, begin), methods=["POST"]),
        Route(TAG, _answering(_get_tracking_store, tag), methods=["POST"]),
        Route(END, _answering(_get_tracking_store, end), methods=["POST"]),
    ]
    return app


def begin(store: SqlAlchemyStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Create a run with its tags and inputs, or find the newest finished one with the fingerprint `unless_finished`.

    The client chooses the run's id, so that it can ask again when an answer got lost.
    """
    run_id, experiment_id = asked["run_id"], int(asked["experiment_id"])
    _, _, tags = _validate_batch_log_data([], [], _tags(asked["tags"]))
    _validate_run_id(run_id)
    with store.ManagedSessionMaker(read_only=False) as session:
        connection = session.connection()
        if asked["unless_finished"] and (found := _finished(connection, experiment_id, asked["unless_finished"])):
            return {"found": found}
        experiment = connection.execute(_FIND_EXPERIMENT, {"experiment_id": experiment_id}).one_or_none()
        if experiment is None or experiment.lifecycle_stage != "active":
            raise MlflowException(f"there is no active experiment {experiment_id}", RESOURCE_DOES_NOT_EXIST)
        artifact_uri = append_to_uri_path(experiment.artifact_location, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME)
        if connection.execute(_FIND_RUN, {"run_id": run_id}).first() is None:
            run = {
                "run_uuid": run_id,
                "experiment_id": experiment_id,
                "name": asked["name"],
                "artifact_uri": artifact_uri,
                "user_id": asked["user_id"],
                "start_time": asked["start_time"],
                "status": "RUNNING",
                "lifecycle_stage": "active",
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "source_version": "",
            }
            connection.execute(_INSERT[_RUNS], run)
            connection.execute(
                _INSERT[_TAGS], [{"run_uuid": run_id, "key": tag.key, "value": tag.value} for tag in tags]
            )
            _add_inputs(connection, experiment_id, run_id, asked["inputs"])
    return {"found": None, "artifact_uri": artifact_uri}


def tag(store: SqlAlchemyStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Set tags of a run. Asked twice, it does the same again."""
    run_id = asked["run_id"]
    _, _, tags = _validate_batch_log_data([], [], _tags(asked["tags"]))
    with store.ManagedSessionMaker(read_only=False) as session:
        connection = session.connection()
        if connection.execute(_FIND_RUN, {"run_id": run_id}).first() is None:
            raise MlflowException(f"there is no run {run_id}", RESOURCE_DOES_NOT_EXIST)
        _replace(connection, _TAGS, run_id, [{"key": each.key, "value": each.value} for each in tags])
    return {}


def end(store: SqlAlchemyStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Add parameters, metrics and tags to a run, and end it. Asked twice, it does the same again."""
    run_id = asked["run_id"]
    metrics, params, tags = _validate_batch_log_data(
        [Metric(**each) for each in asked["metrics"]],
        [Param(key, value) for key, value in asked["params"].items()],
        _tags(asked["tags"]),
    )
    with store.ManagedSessionMaker(read_only=False) as session:
        connection = session.connection()
        ended = {"run_id": run_id, "new_status": asked["status"], "new_end": asked["end_time"]}
        if not connection.execute(_END_RUN, ended).rowcount:
            raise MlflowException(f"there is no active run {run_id}", INVALID_STATE)
        _replace(connection, _TAGS, run_id, [{"key": tag.key, "value": tag.value} for tag in tags])
        _replace(connection, _PARAMS, run_id, [{"key": param.key, "value": param.value} for param in params])
        _add_metrics(connection, run_id, [_row(store, metric) for metric in metrics])
    return {}


def _finished(connection: Connection, experiment_id: int, fingerprint: str) -> dict[str, Any] | None:
    run = connection.execute(_FIND_FINISHED, {"experiment_id": experiment_id, "fingerprint": fingerprint}).first()
    if run is None:
        return None
    latest = connection.execute(_FIND_LATEST, {"run_id": run.run_uuid})
    return {
        "run_id": run.run_uuid,
        "artifact_uri": run.artifact_uri,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "output": run.output,
        "metrics": {row.key: math.nan if row.is_nan else row.value for row in latest},
    }


def _add_inputs(connection: Connection, experiment_id: int, run_id: str, inputs: Iterable[Mapping[str, str]]) -> None:
    """Datasets are known to MLflow once in an experiment, by name and digest."""
    for each in inputs:
        same = {"experiment_id": experiment_id, "name": each["name"], "digest": each["digest"]}
        dataset_id = connection.execute(_FIND_DATASET, same).scalar()
        if dataset_id is None:
            dataset_id = uuid.uuid4().hex
            dataset = {
                "dataset_uuid": dataset_id,
                "experiment_id": experiment_id,
                "name": each["name"],
                "digest": each["digest"],
                "dataset_source_type": each["source_type"],
                "dataset_source": each["source"],
            }
            connection.execute(_INSERT[_DATASETS], dataset)
        input_id = uuid.uuid4().hex
        edge = {
            "input_uuid": input_id,
            "source_type": "DATASET",
            "source_id": dataset_id,
            "destination_type": "RUN",
            "destination_id": run_id,
        }
        connection.execute(_INSERT[_INPUTS], edge)
        context = {"input_uuid": input_id, "name": "mlflow.data.context", "value": each["context"]}
        connection.execute(_INSERT[_INPUT_TAGS], context)


def _add_metrics(connection: Connection, run_id: str, rows: list[dict[str, Any]]) -> None:
    """The history, and the latest value of each key, which MLflow keeps in a table of its own."""
    if not rows:
        return
    keys = list({row["key"] for row in rows})
    known = connection.execute(_FIND_METRICS, {"run_id": run_id, "keys": keys}).mappings()
    there = [dict(row) for row in known]
    new = [row for row in rows if row not in there]
    if new:
        connection.execute(_INSERT[_METRICS], [{"run_uuid": run_id, **row} for row in new])
    latest: dict[str, dict[str, Any]] = {}
    for row in sorted((*there, *new), key=lambda row: (row["step"], row["timestamp"], row["value"])):
        latest[row["key"]] = row
    _replace(connection, _LATEST, run_id, list(latest.values()))


def _replace(connection: Connection, table: Any, run_id: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_DELETE[table], {"run_id": run_id, "keys": [row["key"] for row in rows]})
        connection.execute(_INSERT[table], [{"run_uuid": run_id, **row} for row in rows])


def _row(store: SqlAlchemyStore, metric: Metric) -> dict[str, Any]:
    is_nan, value = store.sanitize_metric_value(metric.value)
    return {
        "key": metric.key,
        "value": value,
        "is_nan": is_nan,
        "timestamp": metric.timestamp,
        "step": metric.step,
    }


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]


def _answering(
    store: Callable[[], Any], work: Callable[[SqlAlchemyStore, Mapping[str, Any]], dict[str, Any]]
) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        asked = json.loads(await request.body())
        try:
            # Not JSONResponse, which refuses NaN: a metric may be that.
            answer = json.dumps(await run_in_threadpool(work, store(), asked))
            return Response(answer, media_type="application/json")
        except MlflowException as error:
            return JSONResponse(json.loads(error.serialize_as_json()), error.get_http_status_code())

    return answer


def _tune(connection: Any, _record: Any) -> None:
    """Commit to a log that is synchronised now and then: what a killed server has answered stays, a power cut may take the last
    seconds, after which a task that finished in them runs again.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
