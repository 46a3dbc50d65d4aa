"""Tracking in a folder and the scripted recipe, for children of this process's own fork server."""

from __future__ import annotations

import multiprocessing.forkserver
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlg_ml_tasks.components import process


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fork server whose children find the scripted recipe; yields the folder for scratch files and tracking.

    Children inherit the environment that the server was started with, so all tests share one.
    """
    folder = tmp_path_factory.mktemp("children")
    (folder / "scratch").mkdir()
    settings = {
        "MLFLOW_TRACKING_URI": f"file://{folder}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in process.THREAD_LIMITS:
            patch.setenv(name, os.environ.get(name, "1"))
        patch.syspath_prepend(str(Path(__file__).parent))  # children take over this process's path
        multiprocessing.forkserver._forkserver._stop()
        process.start_server()
        yield folder
        multiprocessing.forkserver._forkserver._stop()


@pytest.fixture
def scratch(fork_server: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of tasks."""
    monkeypatch.setenv("DLG_ML_SCRATCH", str(fork_server / "scratch"))
    return fork_server / "scratch"
