"""Between a drop's loosely typed values and a task's typed parameters; imports no engine.

The engine passes on what stands in the graph, and the graph editor rewrites values when it saves: null becomes an empty text, "0"
becomes 0, 2.0 becomes 2. The engine's own typed parameters take the text "False" for true. So the values are read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dlg_ml_tasks.tasks import BadInput, Task
from dlg_ml_tasks.tasks.parameters import TaskParams

AFTER = "after"
"""Input port of every component that carries nothing and only orders: the task waits for what is connected to it."""

FORCE = "force"
"""Parameter of every component besides the task's own: do the work even if a finished run has done the same."""


def read_parameters(task: Task[Any], values: Mapping[str, Any]) -> TaskParams:
    """Validate the values of a drop or graph node; names that are no parameter of the task belong to the engine and are left alone.

    A missing value, None, or an empty text where no text is expected means the parameter's default.
    Raises BadInput, in one line, for values that are missing or not valid.
    """
    given = {name: values[name] for name in task.params.model_fields if name in values}
    checked: TaskParams = task.validate(
        {name: value for name, value in given.items() if not _is_absent(task, name, value)}
    )
    return checked


def _is_absent(task: Task[Any], name: str, value: object) -> bool:
    return value is None or (value == "" and task.params.model_fields[name].annotation is not str)


def to_graph_value(value: object) -> str | int | float | bool:
    """The value as a graph carries it: lists and objects as JSON text, because the graph editor destroys native ones on save."""
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value)


def read_force(values: Mapping[str, Any]) -> bool:
    """The value of the `force` parameter; absent means no. Raises BadInput if it is neither true nor false."""
    value = values.get(FORCE)
    if value is None or value == "":
        return False
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise BadInput(f"parameter {FORCE}: {value!r} is neither true nor false") from error
