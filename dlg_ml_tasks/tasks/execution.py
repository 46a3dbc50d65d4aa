"""The life around every task's work: fingerprint, reuse, MLflow run, and where the work is done.

A working module (`Task.module`) defines
``perform(context, params, **inputs) -> Result``: the work; one Reference (or None) per input port, a tuple where a port takes many;
``resolve(params, inputs) -> Any``: what outside the parameters decides the result (a listing of the sources, the version behind an
alias), found before the run starts; a JSON-able value that enters the fingerprint and comes back as `context.resolved`;
``uses(params) -> list``: classes whose code decides the result, for the fingerprint.
"""

from __future__ import annotations

import importlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlg_ml_tasks.tasks import elsewhere, executors
from dlg_ml_tasks.tasks.batches import Lost, refuse_if_too_many
from dlg_ml_tasks.tasks.environment import environment_file, git_commit
from dlg_ml_tasks.tasks.errors import ServiceDown
from dlg_ml_tasks.tasks.fingerprint import fingerprint_of
from dlg_ml_tasks.tasks.order import Order
from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tasks.rank import ONLY, Rank
from dlg_ml_tasks.tasks.surroundings import end_quietly, ended, explained, recorded, scratch
from dlg_ml_tasks.tasks.task import Outcome, Task
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.runs import FinishedRun, TaskRun, TaskToRun
from dlg_ml_tasks.tracking.sessions import record_reuse, store_once
from dlg_ml_tasks.tracking.tags import CLUSTER, ENVIRONMENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a task works with: its MLflow run, an empty scratch folder, a folder whose files become artifacts at the end, its
    fingerprint, what was resolved beforehand, the session it belongs to (if any), which inputs of it were lost, which of several
    processes this one is, and whether another process began the run, which then may have checkpoints already.
    """

    run: TaskRun
    work: Path
    records: Path
    fingerprint: str
    resolved: Any
    session: str | None = None
    lost: tuple[Lost, ...] = ()
    rank: Rank = ONLY
    taken_up: bool = False

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
    with _refused(task, checked, inputs, session, node), explained():
        if lost:
            arrived = sum(len(inputs.get(port, ())) for port in {each.port for each in lost})
            refuse_if_too_many(lost, arrived, getattr(checked, "max_failed_batches", 0), session)
        connected = task.connect(inputs)
        resolved = work_module.resolve(checked, connected)
        code = [work_module.perform, *work_module.uses(checked)]
        fingerprint = fingerprint_of(task.name, checked, resolved, inputs, code)
        started = time.monotonic()
        worked_on = None if force else elsewhere.find_worked_on(fingerprint, checked, session, node)
        executor = executors.SLURM if worked_on else executors.named_by(checked)
        tags = {
            "mlflow.source.git.commit": git_commit(),
            **({CLUSTER: executor} if executor == executors.SLURM else {}),
        }
        if session and task.light:
            tags[ENVIRONMENT] = store_once(session, *environment_file())
        logged = checked.model_dump(mode="json")
        begin = TaskRun.start if force else TaskRun.find_or_start
        run = worked_on or begin(TaskToRun(task.name, node, fingerprint, logged, inputs, tags, session))
        if not isinstance(run, TaskRun):
            return _reuse(run, session, node)
    if executor:
        given = {port: list(references) for port, references in inputs.items()}
        order = Order(
            task=task.name, node=node, session=session, params=logged, inputs=given, resolved=resolved, lost=list(lost)
        )
        done = elsewhere.have_done(executor, run, order, checked, on_start, is_new=not worked_on)
        return Outcome(done.reference, run.run_id, bool(worked_on), time.monotonic() - started, done.metrics)
    with (
        explained(),
        ended(run),
        scratch() as work,
        recorded(run, work / "records", inputs, environment=ENVIRONMENT not in tags) as records,
    ):
        if on_start:
            on_start(run.run_id)
        log.info("%s started, run %s", node, run.run_id)
        context = Context(run, work, records, fingerprint, resolved, session, tuple(lost))
        result = work_module.perform(context, checked, **connected)
        log.info("%s finished: %s", node, result.reference.uri)
    with explained():
        run.finish(result.reference, result.metrics)
    return Outcome(result.reference, run.run_id, False, time.monotonic() - started, dict(result.metrics))


def _reuse(run: FinishedRun, session: str | None, node: str) -> Outcome:
    if session:
        record_reuse(session, node, run.run_id)
    log.info("%s reused run %s", node, run.run_id)
    return Outcome(run.reference, run.run_id, True, run.seconds, dict(run.metrics))


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
            what = TaskToRun(task.name, node, "", params.model_dump(mode="json"), inputs, session=session)
            end_quietly(lambda: TaskRun.start(what).fail(reason))
        raise
