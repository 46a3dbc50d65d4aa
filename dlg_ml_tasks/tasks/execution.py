"""The life around every task's work: fingerprint, reuse, MLflow run, scratch folder, log, errors.

A working module (`Task.module`) defines
``perform(context, params, **inputs) -> Result``: the work; one Reference (or None) per input port, a tuple where a port takes many;
``resolve(params, inputs) -> Any``: what outside the parameters decides the result (a listing of the sources, the version behind an
alias), found before the run starts; a JSON-able value that enters the fingerprint and comes back as `context.resolved`;
``uses(params) -> list``: classes whose code decides the result, for the fingerprint.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from dlg_ml_tasks.archive import NgasError
from dlg_ml_tasks.tasks.batches import Lost, refuse_if_too_many
from dlg_ml_tasks.tasks.environment import SCRATCH, environment_file, git_commit
from dlg_ml_tasks.tasks.errors import ServiceDown, TaskCancelled, TaskError
from dlg_ml_tasks.tasks.explaining import explain
from dlg_ml_tasks.tasks.fingerprint import fingerprint_of
from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tasks.task import Outcome, Task
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.runs import TaskRun
from dlg_ml_tasks.tracking.sessions import record_reuse, store_once
from dlg_ml_tasks.tracking.tags import ENVIRONMENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a task works with: its MLflow run, an empty scratch folder, a folder whose files become artifacts at the end, its
    fingerprint, what was resolved beforehand, the session it belongs to (if any), and which inputs of it were lost.
    """

    run: TaskRun
    work: Path
    records: Path
    fingerprint: str
    resolved: Any
    session: str | None = None
    lost: tuple[Lost, ...] = ()

    def folder(self, name: str) -> Path:
        """A new empty folder in the scratch folder."""
        path = self.work / name
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Result:
    """What a task's work returns."""

    reference: Reference
    metrics: Mapping[str, float] = field(default_factory=dict)


def execute(
    task: Task[Any],
    params: Any,
    inputs: Mapping[str, Sequence[Reference]],
    *,
    session: str | None,
    node: str | None,
    force: bool,
    on_start: Callable[[str], None] | None,
    lost: Sequence[Lost],
) -> Outcome:
    """Run a task; see `Task.run`."""
    node = node or task.name
    work_module = importlib.import_module(task.module)
    checked = task.validate(params)
    with _refused(task, checked, inputs, session, node), _explained():
        if lost:
            arrived = sum(len(inputs.get(port, ())) for port in {each.port for each in lost})
            refuse_if_too_many(lost, arrived, getattr(checked, "max_failed_batches", 0), session)
        connected = task.connect(inputs)
        resolved = work_module.resolve(checked, connected)
        code = [work_module.perform, *work_module.uses(checked)]
        fingerprint = fingerprint_of(task.name, checked, resolved, inputs, code)
        started = time.monotonic()
        tags = {"mlflow.source.git.commit": git_commit()}
        if session and task.light:
            tags[ENVIRONMENT] = store_once(session, *environment_file())
        begin = TaskRun.start if force else TaskRun.find_or_start
        run = begin(task.name, node, fingerprint, checked.model_dump(mode="json"), inputs, tags, session)
        if not isinstance(run, TaskRun):
            return _reuse(*run, session, node)
    with _explained(), _ended(run), _scratch() as work, _recorded(run, work / "records") as records:
        if on_start:
            on_start(run.run_id)
        if ENVIRONMENT not in tags:
            (records / "environment.json").write_text(environment_file()[1])
        if inputs:
            (records / "inputs.json").write_text(_as_json(inputs))
        log.info("%s started, run %s", node, run.run_id)
        context = Context(run, work, records, fingerprint, resolved, session, tuple(lost))
        result = work_module.perform(context, checked, **connected)
        log.info("%s finished: %s", node, result.reference.uri)
    with _explained():
        run.finish(result.reference, result.metrics)
    return Outcome(result.reference, run.run_id, False, time.monotonic() - started, dict(result.metrics))


def _reuse(run: Run, reference: Reference, session: str | None, node: str) -> Outcome:
    if session:
        record_reuse(session, node, run.info.run_id)
    log.info("%s reused run %s", node, run.info.run_id)
    seconds = (run.info.end_time - run.info.start_time) / 1000
    return Outcome(reference, run.info.run_id, True, seconds, dict(run.data.metrics))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what a person can mend into a TaskError of one line; let bugs through as they are."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        raise explained from error


@contextmanager
def _refused(
    task: Task[Any], params: TaskParams, inputs: Mapping[str, Sequence[Reference]], session: str | None, node: str
) -> Iterator[None]:
    """A task of a session that cannot start leaves a failed run all the same: that is where people look for the reason."""
    try:
        yield
    except ServiceDown:
        raise  # the run would go to the server that does not answer
    except Exception:
        if session:
            reason = traceback.format_exc()
            started = params.model_dump(mode="json")
            _end_quietly(lambda: TaskRun.start(task.name, node, "", started, inputs, {}, session).fail(reason))
        raise


@contextmanager
def _ended(run: TaskRun) -> Iterator[None]:
    """Whatever ends the work early ends the run too, with the reason."""
    try:
        yield
    except (TaskCancelled, KeyboardInterrupt):
        _end_quietly(run.kill)
        raise
    except BaseException:
        reason = traceback.format_exc()
        _end_quietly(lambda: run.fail(reason))
        raise


def _end_quietly(end: Callable[[], None]) -> None:
    """Ending a run must not hide the error that ended the work, which often is that the same server went away."""
    try:
        end()
    except (MlflowException, requests.RequestException, ConnectionError) as error:
        log.error("the run could not be ended in MLflow: %s", error)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dlg-ml-", dir=os.environ.get(SCRATCH)) as folder:
        yield Path(folder)


@contextmanager
def _recorded(run: TaskRun, folder: Path) -> Iterator[Path]:
    """A folder that becomes artifacts of the run, also when the task fails, with this thread's log in it.

    Sent together at the end: small files cost by the piece.
    """
    folder.mkdir()
    handler = logging.FileHandler(folder / "task.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    package = logging.getLogger("dlg_ml_tasks")
    level = package.level
    package.addHandler(handler)
    # Setting a level makes every logger of the process forget what it knows of levels.
    if not package.isEnabledFor(logging.INFO):
        package.setLevel(logging.INFO)
    try:
        yield folder
    except BaseException:
        log.exception("the task did not finish")
        raise
    finally:
        package.removeHandler(handler)
        if package.level != level:
            package.setLevel(level)
        handler.close()
        try:
            run.log_folder(folder)
        except (MlflowException, NgasError, requests.RequestException) as error:
            log.error("the task's log could not be stored: %s", error)


def _as_json(inputs: Mapping[str, Sequence[Reference]]) -> str:
    return json.dumps({port: [ref.model_dump() for ref in refs] for port, refs in inputs.items()}, sort_keys=True)
