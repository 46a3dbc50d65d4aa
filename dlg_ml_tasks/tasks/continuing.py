"""The work of a run that another process ordered: what a Slurm job does, and each of several processes."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dlg_ml_tasks.tasks.catalogue import find_task
from dlg_ml_tasks.tasks.errors import BadInput, TaskCancelled, TaskCutShort
from dlg_ml_tasks.tasks.execution import Context
from dlg_ml_tasks.tasks.fingerprint import fingerprint_of
from dlg_ml_tasks.tasks.order import read_order
from dlg_ml_tasks.tasks.rank import Rank, this_rank
from dlg_ml_tasks.tasks.surroundings import ended, explained, recorded, scratch
from dlg_ml_tasks.tasks.task import Outcome
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.relay import LogRelay
from dlg_ml_tasks.tracking.runs import FollowerRun, TaskRun, get_run
from dlg_ml_tasks.tracking.tags import FINGERPRINT, OUTPUT, PROGRESS, STOP

log = logging.getLogger(__name__)


def continue_run(run_id: str) -> Outcome | None:
    """Do the work of a run that was ordered, from its last checkpoint if there is one, and end the run.

    A run that has finished is left alone. Returns None in a process of several that is not the first.
    Raises BadInput if the run was not ordered, or the code here is not that which ordered it; TaskError and the rest as `Task.run`.
    """
    with explained():
        try:
            found = get_run(run_id)
        except LookupError as error:
            raise BadInput(str(error)) from error
        tags = found.data.tags
        if found.info.status == "FINISHED":
            log.info("run %s has finished already", run_id)
            seconds = (found.info.end_time - found.info.start_time) / 1000
            return Outcome(Reference.model_validate_json(tags[OUTPUT]), run_id, True, seconds, dict(found.data.metrics))
        with scratch() as work:
            order = read_order(run_id, work)
        task = find_task(order.task)
        params = task.validate(order.params)
        rank = this_rank(getattr(params, "devices", 1))
        run = (TaskRun if rank.is_first else FollowerRun).take_up(run_id)
    with explained(), ended(run, shared=True):
        if rank.is_first:
            if tags.get(STOP):
                run.kill()
                raise TaskCancelled(signal.SIGTERM)
            run.go_on()
        work_module = importlib.import_module(task.module)
        connected = task.connect(order.inputs)
        code = [work_module.perform, *work_module.uses(params)]
        fingerprint = fingerprint_of(task.name, params, order.resolved, order.inputs, code)
        if fingerprint != tags[FINGERPRINT]:
            raise BadInput(
                f"the code here is not that which ordered run {run_id} (another fingerprint): install the same version of "
                "dlg-ml-tasks and of the recipe on the nodes as where tasks are submitted"
            )
        started = time.monotonic()
        with (
            scratch() as work,
            recorded(run, work / "records", order.inputs, goes_on=rank.is_first) as records,
            _told(run, rank),
        ):
            log.info("%s runs on %s, run %s", order.node, _place(rank), run_id)
            context = Context(
                run, work, records, fingerprint, order.resolved, order.session, tuple(order.lost), rank, taken_up=True
            )
            result = work_module.perform(context, params, **connected)
            if result is None:
                return None
            log.info("%s finished: %s", order.node, result.reference.uri)
        run.finish(result.reference, result.metrics)
    return Outcome(result.reference, run_id, False, time.monotonic() - started, dict(result.metrics))


@contextmanager
def _told(run: TaskRun, rank: Rank) -> Iterator[None]:
    """The log goes to who waits for the run, by the first process; a request to stop comes back."""
    if not rank.is_first:
        yield
        return
    relay = LogRelay(run.run_id, lambda: os.kill(os.getpid(), signal.SIGTERM))
    package = logging.getLogger("dlg_ml_tasks")
    package.addHandler(relay)
    try:
        yield
    except TaskCutShort:
        log.info("stopped ahead of the time limit, to go on later")
        run.set_tags({PROGRESS: "stopped ahead of the time limit, to go on later"})
        raise
    finally:
        package.removeHandler(relay)
        relay.finish()


def _place(rank: Rank) -> str:
    job = os.environ.get("SLURM_JOB_ID")
    host = os.uname().nodename
    devices = f" as the first of {rank.of} processes" if rank.of > 1 else ""
    return f"{host} in Slurm job {job}{devices}" if job else f"{host}{devices}"
