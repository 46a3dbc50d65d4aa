"""An order: all that is needed to do a run's work in another process or on another machine, kept among the run's artifacts.

So nothing travels with a job but the run's id: no file on a shared disk, no long command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dlg_ml_tasks.tasks.batches import Lost
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.files import download_artifact
from dlg_ml_tasks.tracking.runs import TaskRun

_FILE = "order.json"


class Order(BaseModel):
    """A task with its parameters, inputs and what was resolved before its run began; the name and session of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    node: str
    session: str | None
    params: dict[str, Any]
    inputs: dict[str, list[Reference]]
    resolved: Any
    lost: list[Lost]


def write_order(run: TaskRun, order: Order, folder: Path) -> None:
    """Keep the order among the run's artifacts."""
    file = folder / _FILE
    file.write_text(order.model_dump_json(indent=2))
    run.log_file(file)


def read_order(run_id: str, folder: Path) -> Order:
    """The order of a run. Raises BadInput if the run has none."""
    found = download_artifact(run_id, _FILE, folder)
    if found is None:
        raise BadInput(f"run {run_id} was not begun for another process to work on; run its task again instead")
    try:
        return Order.model_validate_json(found.read_text())
    except ValidationError as error:
        raise BadInput(
            f"the order of run {run_id} was written by another version of dlg-ml-tasks: {error.error_count()} errors"
        ) from error
