"""A compose stack of the tests' own on free ports, driven through `docker compose`, and looked at through the engine's API."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

TOP = Path(__file__).parents[2]
PORTS = ("NGAS", "MLFLOW", "ISLAND", "TRANSLATOR", "RESULTS")
IMAGES = {"mlflow": "dlg-ml-mlflow:0.1.0", "daliuge": "dlg-ml-daliuge:0.1.0"}
BUILD_OPTIONS = "DLG_ML_TEST_BUILD_OPTIONS"
"""Environment variable: further options of `docker build`, such as another TORCH_INDEX."""

UP_WITHIN_S = 1500
"""Two node managers, MLflow and the rest start at once, on two cores too."""


class Deployment:
    """One compose project. `profile` says which archive it has."""

    def __init__(self, profile: str, folder: Path, client: docker.DockerClient) -> None:
        self.profile = profile
        self.client = client
        self.project = f"dlg-ml-test-{secrets.token_hex(3)}"
        password = folder / "postgres_password"
        password.write_text(secrets.token_urlsafe(24) + "\n")
        data = folder / "data"
        data.mkdir()
        with ExitStack() as held:
            servers = [held.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in PORTS]
            self.ports = {name: server.getsockname()[1] for name, server in zip(PORTS, servers, strict=True)}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW", "COMPOSE"))}
        self.environment = {
            **clean,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": profile,
            "POSTGRES_PASSWORD_PATH": str(password),
            "DLG_ML_DATA": str(data),
            "DLG_ML_COMPOSE": str(TOP),
            "DLG_ML_HOME": str(folder / "home"),
            **{f"DLG_ML_{name}_PORT": str(port) for name, port in self.ports.items()},
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        self.services = self._services()

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker compose` on this project."""
        return self._run(["docker", "compose", *arguments], check)

    def dlg_ml(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`dlg-ml --stack compose`, as a user on the host would."""
        return self._run([sys.executable, "-m", "dlg_ml_tasks.cli.main", "--stack", "compose", *arguments], check)

    def up(self) -> None:
        """Start everything and wait until all of it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN_S), "--no-build", *self.services)

    def down(self, *, volumes: bool = False) -> None:
        self.compose("--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else []))

    def container(self, service: str) -> Container:
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (found,) = self.client.containers.list(all=True, filters={"label": labels})
        return found

    def crash(self, service: str) -> None:
        """Kill a container's first process, as the kernel would, and wait until the engine, which was not told, starts it again."""
        before = self.container(service).attrs["State"]
        os.kill(before["Pid"], signal.SIGKILL)
        deadline = time.monotonic() + 120
        while self.container(service).attrs["State"]["StartedAt"] == before["StartedAt"]:
            assert time.monotonic() < deadline, f"{service} is not started again"
            time.sleep(0.5)

    def wait_healthy(self, service: str, within_s: float = 600) -> None:
        deadline = time.monotonic() + within_s
        while self.container(service).attrs["State"].get("Health", {}).get("Status") != "healthy":
            assert time.monotonic() < deadline, self.compose("logs", "--tail", "30", service).stdout
            time.sleep(2)

    def _services(self) -> list[str]:
        return self.compose("config", "--services").stdout.split()

    def _run(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=TOP, env=self.environment, capture_output=True, text=True, timeout=1800, check=False
        )
        if check:
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """A client of the container engine; skips, with the reason, where there is none that will do."""
    import docker

    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine answers: {error}")
    for plugin in ("compose", "buildx"):
        if subprocess.run(["docker", plugin, "version"], capture_output=True, check=False).returncode != 0:
            pytest.skip(f"this machine has no `docker {plugin}`")
    if os.getuid() != 0:
        pytest.skip("killing containers' processes needs root")
    return client


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> dict[str, str]:
    """Our two images, built from this checkout."""
    options = shlex.split(os.environ.get(BUILD_OPTIONS, ""))
    for folder, tag in IMAGES.items():
        build = ["docker", "build", *options, "-f", f"deploy/{folder}/Dockerfile", "-t", tag, "."]
        done = subprocess.run(build, cwd=TOP, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return IMAGES


def pull_unless_at_hand(client: docker.DockerClient, image: str) -> None:
    """Skips where the image can be had in neither way."""
    import docker

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(image)
        except docker.errors.APIError as error:
            pytest.skip(f"the image {image} is not at hand and cannot be pulled: {error}")


@pytest.fixture(scope="module", params=["default", "embedded"])
def deployment(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.DockerClient,
    images: dict[str, str],
) -> Iterator[Deployment]:
    """The stack with either archive, up and healthy; gone afterwards with all its volumes."""
    pull_unless_at_hand(engine, "postgres:15-bookworm")
    if request.param == "default":
        pull_unless_at_hand(engine, "icrar/ngas:latest")
    running = Deployment(request.param, tmp_path_factory.mktemp("deploy"), engine)
    try:
        running.up()
        yield running
    finally:
        if artifacts := os.environ.get("DLG_ML_TEST_LOGS"):
            log = Path(artifacts) / f"{running.profile}.log"
            log.write_text(running.compose("logs", "--no-color", check=False).stdout)
        running.down(volumes=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    return path
