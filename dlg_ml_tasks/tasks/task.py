"""A task is a function; this module gives every function the same life around it: validation, fingerprint, run, log, reuse, errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tracking import Reference

P = TypeVar("P", bound=TaskParams)


@dataclass(frozen=True)
class Port:
    """A named input or output of a task: what kind of reference passes, and whether it takes several."""

    name: str
    kind: Literal["files", "model"]
    description: str
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a task left behind. `seconds` is the duration of the run that did the work, also when it was reused."""

    reference: Reference
    run_id: str
    reused: bool
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(Generic[P]):
    """An atomic task. Calling it does the work (or reuses a finished run) and returns the outcome."""

    name: str
    params: type[P]
    inputs: tuple[Port, ...]
    output: Port
    description: str
    function: Callable[..., Any]

    def run(
        self,
        params: P | Mapping[str, Any],
        inputs: Mapping[str, Sequence[Reference]] | None = None,
        *,
        session: str | None = None,
        node: str | None = None,
        force: bool = False,
        on_start: Callable[[str], None] | None = None,
    ) -> Outcome:
        """Run the task on references. `session` groups runs under one parent run; `node` names the run (default: the task's name).

        `on_start` is told the MLflow run id as soon as there is one. Raises TaskError (one line, with the remedy) for what a
        person can mend; anything else is a bug and leaves with its traceback. In both cases the run, if any, is FAILED.
        """
        raise NotImplementedError
