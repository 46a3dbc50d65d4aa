"""A fingerprint changes with everything that decides a result, and with nothing else."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from dlg_ml_tasks.recipes.digits import Digits
from dlg_ml_tasks.tasks import TASKS
from dlg_ml_tasks.tasks.fingerprint import code_digest, fingerprint_of
from dlg_ml_tasks.tracking import Reference


def _reference(digest: str, run: str = "0") -> Reference:
    return Reference(
        kind="files", uri=f"runs:/{run * 32}/data", run_id=run * 32, digest=digest * 64, fingerprint="f" * 64
    )


def _fingerprint(epochs: int = 1, digest: str = "a", run: str = "0", resolved: object = None) -> str:
    params = TASKS["train"].validate({"recipe": "digits", "model_name": "m", "epochs": epochs})
    return fingerprint_of("train", params, resolved, {"data": [_reference(digest, run)]}, [Digits])


def test_it_depends_on_parameters_content_and_what_was_resolved() -> None:
    assert len({_fingerprint(), _fingerprint(epochs=2), _fingerprint(digest="b"), _fingerprint(resolved="v2")}) == 4


def test_it_does_not_depend_on_where_the_task_runs_but_on_how_many_devices_train() -> None:
    def fingerprint(**where: object) -> str:
        params = TASKS["train"].validate({"recipe": "digits", "model_name": "m", **where})
        return fingerprint_of("train", params, None, {}, [Digits])

    assert fingerprint() == fingerprint(executor="slurm", slurm={"partition": "gpu"})
    assert fingerprint() != fingerprint(devices=2)


def test_equal_bytes_made_by_another_run_give_the_same_fingerprint() -> None:
    assert _fingerprint(run="0") == _fingerprint(run="1")


def test_editing_a_recipe_changes_the_digest_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "mine.py"
    digests = []
    for body in ("class R: pass\n", "class R:\n    x = 1\n"):
        source.write_text(body)
        module = types.ModuleType("mine")
        module.__file__ = str(source)
        exec(compile(body, str(source), "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, "mine", module)
        digests.append(code_digest(module.R))
    assert digests[0] != digests[1]
