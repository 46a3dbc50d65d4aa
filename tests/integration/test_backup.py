"""The whole stack backed up while it works, restored under a new home, and at work again there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

GRAPHS = Path(__file__).parents[2] / "graphs"
LIFECYCLE = [
    *("run", str(GRAPHS / "lifecycle.graph"), "--set", "recipe=digits", "--set", "model_name=saved"),
    *("--set", "infer.model=models:/saved@champion"),
]


@pytest.fixture
def elsewhere(stack: Any, tmp_path: Path) -> Iterator[tuple[Callable[..., Any], Path]]:
    """The command line under a new home, for which the stack of the other tests makes room: the archive's port is the same."""
    home = tmp_path / "home"

    def command(*arguments: str, check: bool = True) -> Any:
        return stack(*arguments, check=check, home=home)

    yield command, home
    command("down")
    stack("up")


def test_a_stack_backed_up_at_work_is_restored_and_reuses_every_finished_task(
    stack: Any, elsewhere: tuple[Callable[..., Any], Path], tmp_path: Path
) -> None:
    restored, home = elsewhere
    backup = str(tmp_path / "backup")
    stack(*LIFECYCLE)
    settings = ("--set", "recipe=digits", "--set", "model_name=running", "--set", "train.epochs=3000")
    session = stack("run", str(GRAPHS / "train.graph"), "--detach", *settings).stdout.strip()
    stack("backup", backup)
    stack("sessions", "cancel", session)
    refused = stack("restore", backup, check=False)
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr
    stack("down")

    told = json.loads(restored("restore", backup, "--json").stdout)
    assert told["problems"] == []
    assert told["artifacts_read"] > 20
    # The session itself, and what it was at.
    assert told["ended_runs"] >= 1
    again = restored("restore", backup, check=False)
    assert again.returncode == 1
    assert "is in use" in again.stderr

    restored("up")
    models = json.loads(restored("models", "show", "saved", "--json").stdout)
    assert [version["version"] for version in models] == [1, 2]
    assert "champion" in {alias for version in models for alias in version["aliases"]}
    services = {each["name"]: each for each in json.loads((home / "stack.json").read_text())["services"]}
    program = (
        "import pathlib, sys\n"
        "from dlg_ml_tasks.tracking import registry\n"
        "registry.load(registry.resolve('models:/saved@champion'), pathlib.Path(sys.argv[1]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")],
        env={"MLFLOW_TRACKING_URI": services["mlflow"]["url"], "PATH": "/usr/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert restored(*LIFECYCLE).stdout.count("reused") >= 6
