"""What every executor can do: start the work of a run, say how it is, stop it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

MODULE = "dlg_ml_tasks.cli.main"
"""What is started, by name only: the command line lies above the tasks."""


def arguments(run_id: str) -> list[str]:
    """The command line that does the work of a run."""
    return ["task", "continue", run_id]


class Verdict(Enum):
    """Whether work that has ended without ending its run is started again."""

    NEVER = "never"
    IF_FURTHER = "if it got further"
    """If a checkpoint came since it was started: it was cut off, and a next one will get further."""
    AGAIN = "again"
    """A few times in a row: it was no fault of its own."""


@dataclass(frozen=True)
class State:
    """How the work is: whether it waits for its turn or is over, what to say of it, and whether it is started again."""

    text: str
    waits: bool = False
    is_over: bool = False
    verdict: Verdict = Verdict.NEVER


class ExecutorSilent(Exception):
    """The executor cannot say how the work is; the work itself may go on."""


class Executor(Protocol):
    """Does the work of one run elsewhere."""

    name: str
    outlives: bool
    """Whether the work goes on when who waits for it is gone."""
    resubmissions: int

    def submit(self) -> str:
        """Start the work, and say in one line what was started. Raises ExecutorFailed if that is refused, ExecutorSilent."""
        ...

    def look(self) -> State:
        """How the work is. Raises ExecutorSilent."""
        ...

    def cancel(self) -> None:
        """Stop the work within the few seconds that a cancelled task has. Raises ExecutorSilent."""
        ...

    def release(self) -> None:
        """Let go of work whose run has ended."""
        ...
