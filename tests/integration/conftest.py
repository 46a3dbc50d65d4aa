"""One embedded stack for all integration tests, on free ports and under a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPTED = Path(__file__).parents[1] / "components"
"""Folder of the recipe whose samples succeed, fail or sleep as their name says; the node managers must find it, too."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def command(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `dlg-ml` as a user would, in a folder of its own."""
    folder = tmp_path_factory.mktemp("cwd")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW_TRACKING"))}
    environment |= {"COLUMNS": "200", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SCRIPTED), os.environ.get("PYTHONPATH"))))

    def run(
        *arguments: str, check: bool = True, cwd: Path = folder, home: Path = home
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dlg_ml_tasks.cli.main", *arguments],
            env=environment | {"DLG_ML_HOME": str(home)},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def stack(command: Command) -> Iterator[Command]:
    """The embedded stack, up; yields the command."""
    command("up")
    yield command
    command("down")
