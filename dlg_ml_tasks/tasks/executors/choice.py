"""Which executor a task's parameters ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.entities import Run

from dlg_ml_tasks.tasks.errors import ExecutorFailed, ServiceDown
from dlg_ml_tasks.tasks.executors.cluster import SlurmExecutor, wait_for_answer
from dlg_ml_tasks.tasks.executors.executor import Executor, ExecutorSilent
from dlg_ml_tasks.tasks.executors.processes import ProcessExecutor
from dlg_ml_tasks.tasks.parameters import TrainParams
from dlg_ml_tasks.tracking.tags import TASK

SLURM = SlurmExecutor.name

_PATIENCE = 60.0


def named_by(params: Any) -> str:
    """The name of the executor that the parameters ask for; empty if the process that begins the run does the work."""
    if not isinstance(params, TrainParams):
        return ""
    if params.executor == "slurm":
        return SLURM
    return ProcessExecutor.name if params.devices > 1 else ""


def executor_for(name: str, task: str, run_id: str, params: TrainParams, folder: Path) -> Executor:
    """The executor of this name for a run; `folder` is for what it writes. Raises BadInput."""
    if name == SLURM:
        return SlurmExecutor(task, run_id, params)
    return ProcessExecutor(run_id, params, folder)


def works_on(run: Run, params: TrainParams) -> bool:
    """Whether a job of the cluster works on a run, or waits to.

    Raises ServiceDown if the cluster does not say: a second training of the same model might be begun.
    """
    try:
        return wait_for_answer(SlurmExecutor(run.data.tags[TASK], run.info.run_id, params), _PATIENCE)
    except ExecutorFailed:
        if params.executor == "local":
            return False  # a machine without Slurm cannot ask
        raise
    except ExecutorSilent as error:
        raise ServiceDown(
            f"Slurm does not say whether run {run.info.run_id} is still worked on: {error}; try again later"
        ) from error
