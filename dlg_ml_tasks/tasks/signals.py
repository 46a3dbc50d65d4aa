"""How a task in a program of its own answers signals: it ends its run, and says by its exit code what became of it."""

from __future__ import annotations

import signal
from types import FrameType

from dlg_ml_tasks.tasks.errors import TaskAbandoned, TaskCancelled, TaskCutShort

CUT_SHORT = signal.SIGUSR1
"""A time limit is near (sbatch --signal=USR1@SECONDS)."""

_ANSWERS: dict[signal.Signals, type[TaskCancelled]] = {
    signal.SIGTERM: TaskCancelled,
    signal.SIGINT: TaskCancelled,
    signal.SIGHUP: TaskAbandoned,
    CUT_SHORT: TaskCutShort,
}


def answer_signals() -> None:
    """From here on a signal raises TaskCancelled in the main thread, with the signal's number; further ones are ignored."""
    for number in _ANSWERS:
        signal.signal(number, _answer)


def no_time_limit_any_more() -> None:
    """What is left of the task is short and better finished than cut short."""
    if signal.getsignal(CUT_SHORT) is _answer:
        signal.signal(CUT_SHORT, signal.SIG_IGN)


def _answer(number: int, _frame: FrameType | None) -> None:
    for each in _ANSWERS:
        signal.signal(each, signal.SIG_IGN)  # it must not interrupt the clean-up
    raise _ANSWERS[signal.Signals(number)](number)
