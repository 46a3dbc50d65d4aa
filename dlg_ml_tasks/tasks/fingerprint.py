"""Fingerprints: equal ones mean the same task, inputs, parameters and code, so that work is not done twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlg_ml_tasks.tasks.parameters import TaskParams
from dlg_ml_tasks.tracking import Reference


def fingerprint_of(
    task: str, params: TaskParams, resolved: Any, inputs: Mapping[str, Sequence[Reference]], code: Sequence[object]
) -> str:
    """sha256 in hex over the task, its parameters save where it runs, what was resolved, its inputs' digests and its code."""
    subject = {
        "task": task,
        "params": params.model_dump(mode="json", exclude=set(params.where)),
        "resolved": resolved,
        "inputs": {port: [ref.digest for ref in refs] for port, refs in sorted(inputs.items()) if refs},
        "code": [code_digest(item) for item in code],
    }
    return hashlib.sha256(json.dumps(subject, sort_keys=True, default=str).encode()).hexdigest()


def code_digest(item: object) -> str:
    """sha256 over the source of a class's or function's module; of its whole package where the package is a recipe's own folder.

    A module that lies in a package may use its siblings, so these count as well.
    """
    module = inspect.getmodule(item)
    if module is None or module.__file__ is None:
        raise ValueError(f"{item!r} has no source file to take a fingerprint of")
    file = Path(module.__file__)
    files = sorted(file.parent.rglob("*.py")) if isinstance(item, type) and module.__package__ else [file]
    digest = hashlib.sha256()
    for each in files:
        digest.update(each.relative_to(file.parent).as_posix().encode())
        digest.update(each.read_bytes())
    return digest.hexdigest()
