"""Two node managers that see each other over a network only: network namespaces of their own, and nothing of the other's disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SURVEY = Path(__file__).parents[2] / "graphs" / "survey.graph"
ADDRESSES = ("10.213.71.1", "10.213.71.2")


class Namespaces:
    """Two network namespaces with a cable between them."""

    def __init__(self, names: tuple[str, str], environment: dict[str, str], disk: Path) -> None:
        self.names = names
        self._environment = environment
        self._disk = disk
        for where in range(2):
            (self.disk(where) / "scratch").mkdir(parents=True)

    def disk(self, where: int) -> Path:
        """A folder that only programs in this namespace see."""
        return self._disk / f"host-{where}"

    def start(self, where: int, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        # `ip netns exec` gives a program mounts of its own.
        hide = f'mount -t tmpfs none "{self.disk(1 - where)}" && exec "$@"'
        with (self._disk / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[where], "sh", "-c", hide, "sh", sys.executable, *command],
                env=self._environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, where: int, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.names[where], sys.executable, *command],
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def wait(self, where: int, url: str, seconds: float = 300) -> None:
        program = f"import requests; requests.get({url!r}, timeout=5).raise_for_status()"
        deadline = time.monotonic() + seconds
        while self.run(where, "-c", program).returncode:
            assert time.monotonic() < deadline, f"{url} does not answer; logs: {self._disk}"
            time.sleep(0.5)


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[Namespaces]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = uuid.uuid4().hex[:6]
    names = (f"dlgml-{tag}-a", f"dlgml-{tag}-b")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLG", "MLFLOW"))}
    environment |= {"USER": "tester"}
    with ExitStack() as undo:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"this machine makes no network namespaces: {made.stderr.strip()}")
            undo.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        links = [f"v{tag}{side}" for side in "ab"]
        cable = ["ip", "link", "add", links[0], "netns", names[0], "type", "veth", "peer", links[1], "netns", names[1]]
        made = subprocess.run(cable, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"this machine joins no network namespaces: {made.stderr.strip()}")
        for name, link, address in zip(names, links, ADDRESSES, strict=True):
            for command in (
                ["addr", "add", f"{address}/24", "dev", link],
                ["link", "set", link, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(["ip", "-n", name, *command], check=True)
        yield Namespaces(names, environment, tmp_path)


def test_a_survey_on_two_hosts_hands_on_references_and_bytes_over_the_network(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    first, second = ADDRESSES
    tracking = f"http://{first}:5000"
    running = []
    try:
        disk = namespaces.disk(0)
        archive = ["-m", "dlg_ml_tasks.archive.server", "--root", str(disk / "ngas"), "--port", "7777"]
        running.append(namespaces.start(0, "ngas", *archive, "--host", first, "--open-to-network"))
        server = ["-m", "mlflow", "server", "--host", first, "--port", "5000", "--workers", "1", "--allowed-hosts", "*"]
        store = ["--backend-store-uri", f"sqlite:///{disk}/mlflow.db", "--no-serve-artifacts"]
        root = ["--default-artifact-root", f"ngas://{first}:7777/mlflow"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        running.append(namespaces.start(0, "mlflow", *server, *store, *root, **quiet))
        for where, address in enumerate(ADDRESSES):
            node = ["-m", "dlg_ml_tasks.components.node_manager", "-H", address, "-P", "8000", "-t", "2"]
            own = namespaces.disk(where)
            running.append(
                namespaces.start(
                    where,
                    f"node-{where}",
                    *(*node, "-l", str(own / "logs")),
                    DLG_ROOT=str(own / "dlg"),
                    DLG_ML_SCRATCH=str(own / "scratch"),
                    MLFLOW_TRACKING_URI=tracking,
                )
            )
        members = ",".join(f"{address}:8000:5555:6666" for address in ADDRESSES)
        island = ["-m", "dlg_ml_tasks.components.island_manager", "-H", first, "-P", "8001", "-N", members]
        running.append(namespaces.start(0, "island", *island, "-l", str(disk / "island"), DLG_ROOT=str(disk / "dim")))
        for url in (
            f"{tracking}/health",
            f"http://{first}:8000/api",
            f"http://{second}:8000/api",
            f"http://{first}:8001/api",
        ):
            namespaces.wait(0, url)

        command = ("-m", "dlg_ml_tasks.cli.main")
        client = {
            "DLG_ML_ISLAND": f"{first}:8001",
            "MLFLOW_TRACKING_URI": tracking,
            "DLG_ML_HOME": str(tmp_path / "home"),
        }
        settings = ("recipe=digits", "model_name=far", "infer.model=models:/far@champion", "batches=4")
        options = [f"--set={setting}" for setting in settings]
        done = namespaces.run(0, *command, "run", str(SURVEY), *options, **client)
        assert done.returncode == 0, done.stdout + done.stderr
        shown = json.loads(namespaces.run(0, *command, "sessions", "show", "survey", "--json", **client).stdout)
        assert {task["host"].split(":")[0] for task in shown["tasks"]} == set(ADDRESSES)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(60)
