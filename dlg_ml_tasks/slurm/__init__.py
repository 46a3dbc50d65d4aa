"""Slurm for Python: what a job asks for, its batch script, and the commands sbatch, squeue and scancel.

Knows nothing of MLflow, DALiuGE or machine learning.
"""

from dlg_ml_tasks.slurm.commands import Job, cancel, find, submit
from dlg_ml_tasks.slurm.errors import SlurmError, SlurmMissing, SlurmRefused, SlurmUnreachable
from dlg_ml_tasks.slurm.options import SITE, SlurmOptions
from dlg_ml_tasks.slurm.script import GO_ON_LATER, batch_script

__all__ = [
    "GO_ON_LATER",
    "SITE",
    "Job",
    "SlurmError",
    "SlurmMissing",
    "SlurmOptions",
    "SlurmRefused",
    "SlurmUnreachable",
    "batch_script",
    "cancel",
    "find",
    "submit",
]
