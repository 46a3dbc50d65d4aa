"""load_raw and preprocess with tracking off: the same parameters and ports, and no MLflow and no files; imports no engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from dlg_ml_tasks.tasks import TASKS, Outcome, Task
from dlg_ml_tasks.tracking import Reference


class Untracked(Task[Any]):
    """A task whose work is to name nothing."""

    def run(self, params: Any, inputs: Mapping[str, Sequence[Reference]] | None = None, **_: Any) -> Outcome:
        """Check what was given, as the task does, and return a reference to nothing."""
        self.connect(inputs or {})
        digest = hashlib.sha256(repr((params, inputs)).encode()).hexdigest()
        reference = Reference(
            kind="files", uri=f"runs:/{digest[:32]}/x", run_id=digest[:32], digest=digest, fingerprint=digest
        )
        return Outcome(reference, digest[:32], reused=False, seconds=0.0)


def _untracked(name: str) -> Untracked:
    task = TASKS[name]
    return Untracked(
        f"untracked:{name.upper()}", task.params, task.inputs, task.output, task.description, task.module, task.light
    )


LOAD_RAW = _untracked("load_raw")
PREPROCESS = _untracked("preprocess")
