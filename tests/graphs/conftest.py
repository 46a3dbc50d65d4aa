"""A real node manager and data island manager on free loopback ports, with MLflow's database in a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

RECIPES = Path(__file__).parents[1] / "components"


@dataclass(frozen=True)
class Engine:
    """A running engine: the address of its data island manager, the processes, and where tracking and logs lie."""

    address: str
    node_manager: subprocess.Popen[bytes]
    tracking_uri: str
    folder: Path


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with _Starting(tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture(scope="session")
def engine_in() -> type[_Starting]:
    """Context manager that starts an engine of a test's own in a folder."""
    return _Starting


class _Starting:
    """Context manager: an engine with its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Engine:
        rest, events, rpc, island = _free_ports(4)
        # Tasks write at the same time, which MLflow's store of plain files does not bear.
        tracking_uri = f"sqlite:///{self._folder}/mlflow.db"
        MlflowClient(tracking_uri).create_experiment("dlg-ml-tasks", (self._folder / "artifacts").as_uri())
        environment = os.environ | {
            "DLG_ROOT": str(self._folder / "dlg"),
            "USER": os.environ.get("USER", "tester"),
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "DLG_ML_SCRATCH": str(self._folder / "scratch"),
            "PYTHONPATH": str(RECIPES),
        }
        (self._folder / "scratch").mkdir()
        node = [
            "-m",
            "dlg_ml_tasks.components.node_manager",
            "-P",
            rest,
            "--event_port",
            events,
            "--rpc_port",
            rpc,
            "-t",
            "4",
        ]
        dim = [
            "-c",
            "from dlg.common.tool import run; run()",
            "dim",
            "-P",
            island,
            "-N",
            f"127.0.0.1:{rest}:{events}:{rpc}",
        ]
        for name, command in (("node", node), ("island", dim)):
            with (self._folder / f"{name}.log").open("wb") as log:
                logs = ["-H", "127.0.0.1", "-l", str(self._folder / "logs")]
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, *command, *logs],
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        self._wait(f"http://127.0.0.1:{rest}/api/sessions")
        self._wait(f"http://127.0.0.1:{island}/api/sessions")
        return Engine(f"127.0.0.1:{island}", self._processes[0], tracking_uri, self._folder)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, url: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(url, timeout=5).raise_for_status()
            except requests.RequestException:
                if time.monotonic() > deadline:
                    self.__exit__()
                    raise
                time.sleep(0.1)
            else:
                return


def _free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
