"""Fixtures that several rooms share: an embedded archive, and a tracking store and server whose artifacts lie in it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from xdist.scheduler import LoadScopeScheduling

START_SECONDS = 180

# One thread: what the tests compare bit by bit, and what two busy cores bear best.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"


SLOW_FOLDERS = ("integration", "web", "slurm", "components", "tracking", "stack")
"""They begin first, so that no worker ends long after the other."""


def _folder(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).parts[1]


class FoldersInTurn(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker of `pytest -n` whole folders: a server that a folder's tests share is started once, and the whole stacks of
    `integration`, which take the usual ports, never meet.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _folder(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FoldersInTurn:
    config.option.loadscopereorder = False  # by number of tests
    return FoldersInTurn(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _folder(item.nodeid) not in SLOW_FOLDERS)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an embedded archive that lives as long as the test session."""
    from dlg_ml_tasks.archive.server import EmbeddedNgas

    with EmbeddedNgas(tmp_path_factory.mktemp("ngas")) as server:
        yield f"ngas://{server.host}:{server.port}"


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, made once: its first migration takes many seconds."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def tracking(archive: str, tracking_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of the test's own with its artifacts in the embedded archive; returns its artifact location."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store}")
    name = f"test-{uuid.uuid4().hex[:8]}"
    location = f"{archive}/{name}"
    mlflow.MlflowClient().create_experiment(name, artifact_location=location)
    monkeypatch.setenv("DLG_ML_EXPERIMENT", name)
    return location


@pytest.fixture(scope="session")
def tracking_server(archive: str, tracking_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real `mlflow server` that passes artifacts on to the embedded archive; its database is `tracking_store`."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_", "DLG_ML"))}
    environment |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{tracking_store}"),
                *("--artifacts-destination", f"{archive}/proxied", "--workers", "1"),
            ],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", server, folder / "server.log")
        yield url
    finally:
        # The uvicorn worker is a child of the command; both are in the session made for them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(timeout=60)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(URLError, OSError), urlopen(url, timeout=5) as reply:
            assert reply.status == 200
            return
        time.sleep(0.25)
    raise AssertionError(f"the tracking server did not start in {START_SECONDS} s:\n{log.read_text()[-2000:]}")
