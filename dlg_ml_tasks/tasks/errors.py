"""What a task raises when a person can mend it: one line with the offending value and the remedy.

TaskError
├── BadInput          a source, parameter, recipe, reference or data set is not usable
├── ServiceDown       the archive or the tracking server does not answer
├── BatchesFailed     more batches of a survey failed than the task may go on without
├── ExecutorFailed    the work was to be done on another machine or in other processes, and was not
├── DiskFull          no space left where the task works or writes
└── TrainingDiverged  the loss became NaN or infinite
TaskCancelled         (BaseException) the session was cancelled, or the task's process asked to end; the run becomes KILLED
├── TaskCutShort      asked to stop now and to go on later: a time limit is near
└── TaskAbandoned     who waited for the task is gone; what is done elsewhere may go on
"""

from __future__ import annotations

from pydantic import ValidationError


class TaskError(Exception):
    """Base of every error with a remedy; shown without a traceback."""


class BadInput(TaskError, ValueError):
    """A source, parameter, recipe, reference or data set is not usable."""


class BatchesFailed(TaskError):
    """More batches of a survey failed than the task may go on without."""


class ServiceDown(TaskError, ConnectionError):
    """The archive or the tracking server does not answer."""


class ExecutorFailed(TaskError):
    """The work was to be done on another machine or in other processes, and was not."""


class DiskFull(TaskError, OSError):
    """No space left where the task works or writes."""


class TrainingDiverged(TaskError, ArithmeticError):
    """The loss became NaN or infinite."""


class TaskCancelled(BaseException):
    """Raised in a task's main thread when its session is cancelled."""


class TaskCutShort(TaskCancelled):
    """Raised in a task's main thread when a time limit is near: what is done stays, the rest is for later."""


class TaskAbandoned(TaskCancelled):
    """Raised in a task's main thread when nobody waits for it any more, though nobody asked it to stop."""


def describe_validation(error: ValidationError) -> str:
    """One line for all of pydantic's findings: where, what is wrong, the value given."""
    return "; ".join(
        f"{'.'.join(map(str, finding['loc'])) or 'value'}: {finding['msg']} (got {finding['input']!r})"
        for finding in error.errors(include_url=False)
    )
