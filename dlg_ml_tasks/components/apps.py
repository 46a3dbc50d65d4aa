"""The application drops: each finds its ports and parameters, has its task run, and writes the reference to what it made.

BarrierAppDROPs, not PyFuncApps: the latter ignore falsy parameters and get None for inputs on another node.
"""

from __future__ import annotations

import logging
import time
from typing import Any, ClassVar

from dlg.apps.app_base import BarrierAppDROP
from dlg.ddap_protocol import AppDROPStates, DROPStates
from dlg.dlg_logging import USER
from dlg.drop import track_current_drop
from dlg.droputils import allDropContents
from pydantic import ValidationError

from dlg_ml_tasks.components import process
from dlg_ml_tasks.components.parameters import AFTER, read_force, read_parameters
from dlg_ml_tasks.tasks import TASKS, BadInput, Task
from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tracking import Reference

# Below "dlg", so that the node manager's log level holds here too, and a logger of the engine's class, which marks each record with
# the running drop: without the mark nothing reaches the drop's own log.
logger = logging.getLogger("dlg.dlg_ml_tasks")


class TaskApp(BarrierAppDROP):  # type: ignore[misc]  # the engine is untyped
    """Runs one task in a child process. Subclasses name the task."""

    task: ClassVar[Task[Any]]

    def initialize(self, **kwargs: Any) -> None:
        """Validate the parameters when the graph is deployed, long before the task's turn comes."""
        super().initialize(**kwargs)
        try:
            self._params: TaskParams = read_parameters(self.task, self.parameters)
            self._force = read_force(self.parameters)
        except BadInput as error:
            self._refuse(error)

    @track_current_drop  # type: ignore[untyped-decorator]
    def _refuse(self, error: BadInput) -> None:
        # The engine fails a session at deployment if a drop carries an `exception`; one that is raised here would leave the session
        # half made and the client without the reason.
        logger.error("%s: %s", self.name, error)
        self.exception = error

    @track_current_drop  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Run the task; an error leaves as an exception whose last line says in one line what was wrong."""
        request = {
            "task": self.task.name,
            "params": self._params.model_dump(mode="json"),
            "inputs": {port: [ref.model_dump() for ref in refs] for port, refs in self._read_inputs().items()},
            "session": self._dlg_session_id or None,
            "node": self.name,
            "force": self._force,
        }
        log = _SparseLog()
        try:
            finished = process.run(
                request,
                on_log=log.add,
                on_traceback=log.add,
                cancelled=lambda: self.execStatus == AppDROPStates.CANCELLED,
            )
        finally:
            log.flush()
        how = "reused" if finished.reused else f"finished in {finished.seconds:.1f} s"
        logger.log(USER, "%s %s: %s", self.task.name, how, finished.reference.uri)
        self._write_output(finished.reference)

    def _read_inputs(self) -> dict[str, list[Reference]]:
        # The port lists survive when a graph is cut over several nodes; the `inputs` parameter does not. Sorted, so that the order
        # in which the engine happened to link the drops does not change the task's fingerprint.
        by_oid = {drop.oid: drop for drop in self.inputs}
        return {
            port: [
                self._read_reference(port, by_oid[oid])
                for oid in sorted(oids)
                if by_oid[oid].status == DROPStates.COMPLETED
            ]
            for port, oids in self._port_names["input"].items()
            if port != AFTER
        }

    def _read_reference(self, port: str, drop: Any) -> Reference:
        content = allDropContents(drop)
        try:
            return Reference.model_validate_json(content)
        except ValidationError as error:
            raise process.TaskFailed(
                f"input {port!r} of {self.name!r} holds no reference but {content[:60]!r}; connect it to the output of a task"
            ) from error

    def _write_output(self, reference: Reference) -> None:
        content = reference.model_dump_json().encode()
        for drop in self.outputs:
            written = drop.write(content)
            # The engine reports a refused write by a negative number only.
            if written != len(content):
                raise process.TaskFailed(f"output drop {drop.name!r} took {written} instead of {len(content)} bytes")


class _SparseLog:
    """Passes a task's log lines on as at most one record a second: every record of the engine visits every drop's handler."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._last = time.monotonic()

    def add(self, text: str) -> None:
        self._lines.append(text)
        if time.monotonic() - self._last >= 1:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            # The engine's handlers decode every message as unicode escapes and raise on what is none, such as "C:\users".
            text = "\n".join(self._lines).replace("\\", "\\\\")
            logger.log(USER, "%s", text.encode("ascii", "backslashreplace").decode("ascii"))
        self._lines = []
        self._last = time.monotonic()


class LoadRawApp(TaskApp):
    """Load raw files into the archive."""

    task = TASKS["load_raw"]


class PreprocessApp(TaskApp):
    """Turn raw files into training data."""

    task = TASKS["preprocess"]


class TrainApp(TaskApp):
    """Train a new model."""

    task = TASKS["train"]


class RetrainApp(TaskApp):
    """Train a model on with new data."""

    task = TASKS["retrain"]


class InferApp(TaskApp):
    """Apply a model to data."""

    task = TASKS["infer"]


class PromoteApp(TaskApp):
    """Decide whether the newest model becomes the champion."""

    task = TASKS["promote"]
