"""Turning errors of the layers below into the tasks' own, with the remedy."""

from __future__ import annotations

import errno

from mlflow.exceptions import MlflowException

from dlg_ml_tasks.archive import (
    ArchiveFull,
    ArchiveOffline,
    ArchiveOverloaded,
    ArchiveUnreachable,
    FileNotInArchive,
    NgasError,
)
from dlg_ml_tasks.tasks.errors import BadInput, DiskFull, ServiceDown, TaskError
from dlg_ml_tasks.tracking.errors import ContentChanged, TrackingUnreachable, UnknownModel


def explain(error: Exception) -> TaskError | None:
    """The TaskError for an error that a person can mend; None if it is a bug."""
    if isinstance(error, MlflowException) and isinstance(error.__cause__, NgasError):
        # The artifact repository speaks MLflow's language and keeps the archive's error as the cause.
        error = error.__cause__
    if isinstance(error, ArchiveFull):
        return DiskFull(str(error))
    if isinstance(error, TrackingUnreachable | ArchiveUnreachable | ArchiveOffline | ArchiveOverloaded):
        return ServiceDown(str(error))
    if isinstance(error, UnknownModel | ContentChanged | FileNotInArchive):
        return BadInput(str(error))
    if isinstance(error, NgasError):
        return TaskError(str(error))
    if isinstance(error, MlflowException) and "Max retries exceeded" in str(error):
        return ServiceDown(f"the tracking server went away: {str(error)[:200]}; start it again and repeat the task")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "temporary files"
        return DiskFull(f"no space left on the device for {where}; free some, or set DLG_ML_SCRATCH to a larger disk")
    return None
