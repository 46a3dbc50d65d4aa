"""A run whose work another process or machine does: ordered here, waited for, found again by who asks for the same work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dlg_ml_tasks.tasks import executors
from dlg_ml_tasks.tasks.order import Order, write_order
from dlg_ml_tasks.tasks.parameters import TrainParams
from dlg_ml_tasks.tasks.surroundings import ended, explained, scratch
from dlg_ml_tasks.tracking.runs import TaskRun, find_finished, find_on_cluster
from dlg_ml_tasks.tracking.sessions import record_reuse
from dlg_ml_tasks.tracking.tags import STOP

log = logging.getLogger(__name__)


def find_worked_on(fingerprint: str, params: Any, session: str | None, node: str) -> TaskRun | None:
    """A run of the same work on which a job of the cluster is working: who waited for it is gone.

    Raises ServiceDown if the cluster does not say whether it still is.
    """
    if not isinstance(params, TrainParams):
        return None
    begun = find_on_cluster(fingerprint)
    if begun and find_finished(fingerprint):
        return None  # that one is reused, whatever became of the others
    for run in begun:
        if executors.works_on(run, params):
            if session:
                record_reuse(session, node, run.info.run_id)
            log.info("%s is worked on already, run %s", node, run.info.run_id)
            found = TaskRun.take_up(run.info.run_id)
            found.set_tags({STOP: ""})  # it may have been asked to stop before, and is wanted again
            found.go_on()
            return found
    return None


def have_done(
    executor: str,
    run: TaskRun,
    order: Order,
    params: TrainParams,
    on_start: Callable[[str], None] | None,
    *,
    is_new: bool,
) -> executors.Finished:
    """Have the work of a run done by the executor of this name, and wait for it; returns what it left."""
    with explained(), ended(run, shared=True), scratch() as work:
        if on_start:
            on_start(run.run_id)
        if is_new:
            log.info("%s started, run %s", order.node, run.run_id)
            write_order(run, order, work)
        return executors.wait(run, executors.executor_for(executor, order.task, run.run_id, params, work))
