"""Where a run's work is done if not by the process that began the run: in a Slurm job, or in several processes of this machine.

All do the same: they start ``dlg-ml task continue RUN``, once for each device.
"""

from dlg_ml_tasks.tasks.executors.choice import SLURM, executor_for, named_by, works_on
from dlg_ml_tasks.tasks.executors.executor import Executor
from dlg_ml_tasks.tasks.executors.waiting import Finished, wait

__all__ = ["SLURM", "Executor", "Finished", "executor_for", "named_by", "wait", "works_on"]
