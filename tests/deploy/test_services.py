"""What each service does with bad input, and how the images are made; one container at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlg_ml_tasks.archive.filesystem import NgasFileSystem

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

pytestmark = pytest.mark.deploy

TOP = Path(__file__).parents[2]
NGAS_PYTHON = "/home/ngas/ngas_rt/bin/python"


def run(image: str, *options: str, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "run", "--rm", *options, image, *command], capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("name", ["mlflow", "daliuge"])
def test_an_image_is_small_enough_and_has_no_build_tools(
    engine: docker.DockerClient, images: dict[str, str], name: str
) -> None:
    image = engine.images.get(images[name])
    assert image.attrs["Size"] < 3e9
    assert image.attrs["Config"]["User"] == "10001"
    assert image.attrs["Config"]["Healthcheck"]
    assert image.labels["org.opencontainers.image.version"] == "0.1.0"
    found = run(images[name], "--entrypoint", "sh", command=("-c", "command -v cc gcc make git; true"))
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", ["mlflow", "daliuge"])
def test_an_image_holds_the_versions_of_the_lock_and_nothing_else(images: dict[str, str], name: str) -> None:
    lock = {line.lower().replace("_", "-") for line in (TOP / "constraints.txt").read_text().splitlines()}
    listed = run(images[name], "--entrypoint", "pip", command=("list", "--format=freeze")).stdout.splitlines()
    found = {line.lower().replace("_", "-").replace("+cpu", "") for line in listed}
    assert {line.split("==")[0] for line in found - lock} == {"dlg-ml-tasks", "pip"}
    assert "mlflow" in {line.split("==")[0] for line in found}


def test_the_flagships_sample_data_is_made_in_the_engines_image(images: dict[str, str]) -> None:
    done = run(images["daliuge"], command=("dlg-ml", "simulate", "rfi", "--night", "A", "--out", "/tmp/night-A"))
    assert "files in /tmp/night-A" in done.stdout, done.stderr


def test_the_servers_image_has_the_plugin_and_no_torch(images: dict[str, str]) -> None:
    program = (
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as get;"
        "import importlib.util as u;"
        "print(type(get('ngas://a:1/b')).__name__, u.find_spec('torch'), u.find_spec('dlg'))"
    )
    done = run(images["mlflow"], "--entrypoint", "python", command=("-W", "error::UserWarning", "-c", program))
    assert done.stdout.split() == ["NgasArtifactRepository", "None", "None"], done.stderr


def test_mlflow_without_its_secret_says_so_in_one_line_and_leaves(images: dict[str, str]) -> None:
    done = run(images["mlflow"], "-e", "POSTGRES_PASSWORD_FILE=/run/secrets/none")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "/run/secrets/none cannot be read" in line


def test_mlflow_waits_for_a_database_that_is_down_and_is_not_healthy(
    engine: docker.DockerClient, images: dict[str, str], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x\n")
    container = engine.containers.run(
        images["mlflow"],
        detach=True,
        environment={"POSTGRES_PASSWORD_FILE": "/secret", "POSTGRES_HOST": "127.0.0.1"},
        volumes={str(secret): {"bind": "/secret", "mode": "ro"}},
    )
    try:
        deadline = time.monotonic() + 60
        while not container.logs() and time.monotonic() < deadline:
            time.sleep(1)
        container.reload()
        assert container.status == "running"
        assert container.attrs["State"]["Health"]["Status"] != "healthy"
        (line,) = container.logs().decode().splitlines()
        assert "waiting for PostgreSQL at 127.0.0.1" in line
    finally:
        container.remove(force=True)


def health(container: Container) -> tuple[int, str]:
    """Exit code and words of the archive's health check."""
    container.reload()
    assert container.status == "running", container.logs().decode()[-2000:]
    code, said = container.exec_run([NGAS_PYTHON, "/deploy/health.py"])
    return code, said.decode()


def within(seconds: float, there: Callable[[], bool]) -> bool:
    """Whether it comes true in that time."""
    deadline = time.monotonic() + seconds
    while not (done := there()) and time.monotonic() < deadline:
        time.sleep(1)
    return done


@contextmanager
def ngas(engine: docker.DockerClient, size: str) -> Iterator[Container]:
    """The real NGAS as docker-compose.yml starts it, on a disk of `size`."""
    import docker

    try:
        engine.images.get("icrar/ngas:latest")
    except docker.errors.ImageNotFound:
        pytest.skip("the image icrar/ngas:latest is not at hand")
    deploy = TOP / "deploy" / "ngas"
    container = engine.containers.run(
        "icrar/ngas:latest",
        detach=True,
        user="0:0",
        entrypoint=[NGAS_PYTHON, "/deploy/start.py"],
        hostname="ngas",
        ports={"7777/tcp": ("127.0.0.1", None)},
        tmpfs={"/home/ngas/NGAS": f"size={size}"},
        volumes={
            str(deploy): {"bind": "/deploy", "mode": "ro"},
            str(deploy / "ngamsServer.conf"): {"bind": "/home/ngas/NGAS/cfg/ngamsServer.conf", "mode": "ro"},
        },
    )
    try:
        yield container
    finally:
        container.remove(force=True)


WRITER = """
import sys, time
from dlg_ml_tasks.archive.filesystem import NgasFileSystem
fs = NgasFileSystem("127.0.0.1", int(sys.argv[1]), patience=120)
for turn in range(10):
    time.sleep(1 - time.time() % 1)  # all writers at once
    fs.pipe_file(f"/{turn}/a/b/{sys.argv[2]}", sys.argv[2].encode())
"""


def test_processes_that_make_the_same_directories_at_the_same_time_do_no_harm(engine: docker.DockerClient) -> None:
    with ngas(engine, "700m") as container:
        assert within(180, lambda: health(container)[0] == 0), container.logs().decode()[-2000:]
        port = container.ports["7777/tcp"][0]["HostPort"]
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, port, str(number)], stderr=subprocess.PIPE, text=True)
            for number in range(4)
        ]
        said = [writer.communicate(timeout=300)[1] for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * len(writers), "".join(said)
        reader = NgasFileSystem("127.0.0.1", int(port))
        assert reader.ls("/", detail=False) == [f"/{turn}" for turn in range(10)]
        files = reader.find("/")
        assert len(files) == 10 * len(writers)
        assert all(reader.cat_file(path).decode() == path.rpartition("/")[2] for path in files)


def test_an_archive_whose_disk_is_full_says_so_in_one_line_and_does_not_start(engine: docker.DockerClient) -> None:
    # Less than the 500 MB that the configuration wants to have left.
    with ngas(engine, "300m") as container:
        assert container.wait(timeout=120)["StatusCode"] == 1
        (line,) = container.logs().decode().splitlines()
        assert "is full: 300 MB are left, and NGAS starts with 500" in line


def test_an_archive_whose_disk_fills_up_goes_offline_and_its_health_check_says_so(engine: docker.DockerClient) -> None:
    with ngas(engine, "700m") as container:
        assert within(180, lambda: health(container)[0] == 0), container.logs().decode()[-2000:]
        container.exec_run(["dd", "if=/dev/zero", "of=/home/ngas/NGAS/others", "bs=1M", "count=300"])
        # It looks once a minute.
        offline = (1, "NGAS is OFFLINE, not ONLINE; is its disk full?\n")
        assert within(300, lambda: health(container) == offline), health(container)
