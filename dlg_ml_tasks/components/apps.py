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
from dlg_ml_tasks.components.copies import copy_name, copy_numbers, copy_numbers_in
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
        """Validate parameters and ports when the graph is deployed, long before the task's turn comes."""
        super().initialize(**kwargs)
        self._copy = copy_numbers(self.parameters.get("iid", "0"))
        self._node = copy_name(self.name, self.parameters.get("iid", "0"))
        self._may_lose_batches = self._must_not_start = False
        try:
            self._params: TaskParams = self._for_copy(read_parameters(self.task, self.parameters))
            self._force = read_force(self.parameters)
            self._require_inputs()
            self._may_lose_batches = getattr(self._params, "max_failed_batches", 0) > 0
        except BadInput as error:
            self._refuse(error)

    def dropCompleted(self, uid: str, drop_state: DROPStates) -> None:  # noqa: N802 (the engine's name)
        """Decide with each input that failed whether to start in spite of it, before the engine counts it."""
        if drop_state == DROPStates.ERROR:
            is_batch = copy_numbers_in(uid) and uid not in self._port_names["input"].get(AFTER, ())
            self._must_not_start |= not (is_batch and self._may_lose_batches)
            # The engine rounds the failed inputs down to whole percents, so that 0 would let one of 200 pass. It starts nothing at
            # -1 and anything at 100: how many batches are too many, and which they are, is for the task to say.
            self.input_error_threshold = -1 if self._must_not_start else 100
        super().dropCompleted(uid, drop_state)

    def _require_inputs(self) -> None:
        """Raises BadInput if a port that needs an input has none, or one that takes one has several."""
        for port in self.task.inputs:
            connected = len(self._port_names["input"].get(port.name, ()))
            if port.required and not connected:
                raise BadInput(f"nothing is connected to its required port {port.name!r} ({port.description})")
            if not port.many and connected > 1:
                raise BadInput(f"port {port.name!r} takes one input, but {connected} are connected")

    def _for_copy(self, params: TaskParams) -> TaskParams:
        """The parameters for this copy of a scatter, as far as they differ from copy to copy. Raises BadInput."""
        return params

    @track_current_drop  # type: ignore[untyped-decorator]
    def _refuse(self, error: BadInput) -> None:
        # The engine fails a session at deployment if a drop carries an `exception`; one that is raised here would leave the session
        # half made and the client without the reason.
        logger.error("%s", error)
        self.exception = error

    @track_current_drop  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Run the task; an error leaves as an exception whose last line says in one line what was wrong."""
        inputs, lost = self._read_inputs()
        request = {
            "task": self.task.name,
            "light": self.task.light,
            "params": self._params.model_dump(mode="json"),
            "inputs": {port: [ref.model_dump() for ref in refs] for port, refs in inputs.items()},
            "lost": lost,
            "session": self._dlg_session_id or None,
            "node": self._node,
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

    def _read_inputs(self) -> tuple[dict[str, list[Reference]], list[dict[str, Any]]]:
        """The references at each port, and the copies of a scatter (port, copy) whose references will not come."""
        # The port lists survive when a graph is cut over several nodes; the `inputs` parameter does not. Sorted, so that the order
        # in which the engine happened to link the drops does not change the task's fingerprint.
        by_oid = {drop.oid: drop for drop in self.inputs}
        references: dict[str, list[Reference]] = {}
        lost: list[dict[str, Any]] = []
        for port, oids in self._port_names["input"].items():
            states = {oid: by_oid[oid].status for oid in sorted(oids, key=_in_order)}
            failed = [oid for oid, state in states.items() if state == DROPStates.ERROR]
            lost += [{"port": port, "copy": copy_numbers_in(oid)[0]} for oid in failed]
            if port != AFTER:
                came = [oid for oid, state in states.items() if state == DROPStates.COMPLETED]
                references[port] = [self._read_reference(port, by_oid[oid]) for oid in came]
        return references, lost

    def _read_reference(self, port: str, drop: Any) -> Reference:
        content = allDropContents(drop)
        try:
            return Reference.model_validate_json(content)
        except ValidationError as error:
            raise process.TaskFailed(
                f"input {port!r} of {self._node!r} holds no reference but {content[:60]!r}; connect it to the output of a task"
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


def _in_order(oid: str) -> tuple[str, tuple[int, ...]]:
    return oid.rpartition("_")[0], copy_numbers_in(oid)


class LoadRawApp(TaskApp):
    """Load raw files into the archive; in a scatter, each copy the batch of its own number."""

    task = TASKS["load_raw"]

    def _for_copy(self, params: TaskParams) -> TaskParams:
        values = params.model_dump()
        if not self._copy or values["batch"] is not None:
            return params
        (number, *inner), batches = self._copy, values["batches"]
        if inner:
            raise BadInput("load_raw stands in a scatter within a scatter; batches are numbered by one scatter only")
        if number > batches:
            raise BadInput(
                f"this is copy {number} of a scatter, but batches={batches}; set it to the scatter's num_of_copies"
            )
        return read_parameters(self.task, {**values, "batch": number})


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
