"""What a task is: its name, typed parameters and ports. Declarations only, so that palettes and --help need no heavy imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from dlg_ml_tasks.tasks.errors import BadInput, describe_validation
from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tracking import Reference

if TYPE_CHECKING:
    from dlg_ml_tasks.tasks.batches import Lost

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
    """An atomic task. Running it does the work, or reuses a finished run of the same work, and returns the outcome.

    `module` names the module with the work itself (see `dlg_ml_tasks.tasks.execution`). A task is `light` if it leaves nothing
    behind in its process that could change the next one's work; light tasks of a session may share one.
    """

    name: str
    params: type[P]
    inputs: tuple[Port, ...]
    output: Port
    description: str
    module: str
    light: bool = False

    def run(
        self,
        params: P | Mapping[str, Any],
        inputs: Mapping[str, Sequence[Reference]] | None = None,
        *,
        session: str | None = None,
        node: str | None = None,
        force: bool = False,
        on_start: Callable[[str], None] | None = None,
        lost: Sequence[Lost] = (),
    ) -> Outcome:
        """Run the task on references. `session` groups runs under one parent run; `node` names the run (default: the task's name);
        `lost` are inputs that will not come, which the task goes on without as far as its parameter `max_failed_batches` allows.

        A FINISHED run with the same fingerprint is reused unless `force`. `on_start` is told the MLflow run id as soon as there is
        one. Raises TaskError (one line, with the remedy) for what a person can mend; anything else is a bug and leaves with its
        traceback. In both cases the run, if any, is FAILED; it is KILLED after TaskCancelled or Ctrl-C.
        """
        from dlg_ml_tasks.tasks.execution import execute

        return execute(
            self, params, inputs or {}, session=session, node=node, force=force, on_start=on_start, lost=lost
        )

    def validate(self, params: P | Mapping[str, Any]) -> P:
        """Check parameters; raises BadInput naming each wrong one with its value."""
        if isinstance(params, self.params):
            return params
        try:
            return self.params.model_validate(params)
        except ValidationError as error:
            raise BadInput(f"parameters of {self.name}: {describe_validation(error)}") from error
        except json.JSONDecodeError as error:
            raise BadInput(f"parameters of {self.name}: {error.doc!r} is not JSON: {error}") from error

    def connect(self, inputs: Mapping[str, Sequence[Reference]]) -> dict[str, Any]:
        """Check references against the ports: one Reference (or None) by port, a tuple where a port takes several.

        Raises BadInput for an unknown or missing port, too many references, or the wrong kind.
        """
        if unknown := set(inputs) - {port.name for port in self.inputs}:
            raise BadInput(f"{self.name} has no input {sorted(unknown)}; it has {[port.name for port in self.inputs]}")
        connected: dict[str, Any] = {}
        for port in self.inputs:
            references = tuple(inputs.get(port.name, ()))
            if not references and port.required:
                raise BadInput(f"{self.name} needs its input '{port.name}': {port.description}")
            if len(references) > 1 and not port.many:
                raise BadInput(f"input '{port.name}' of {self.name} takes one reference, got {len(references)}")
            for reference in references:
                if reference.kind != port.kind:
                    raise BadInput(f"input '{port.name}' of {self.name} takes {port.kind}, got {reference.uri}")
            connected[port.name] = references if port.many else (references[0] if references else None)
        return connected
