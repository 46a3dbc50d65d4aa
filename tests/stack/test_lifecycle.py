"""The whole stack: real servers in a home of the test's own, on ports of its own."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
import requests

from dlg_ml_tasks.archive.server import EmbeddedNgas
from dlg_ml_tasks.stack import (
    ServiceState,
    StackError,
    StackState,
    down,
    load_state,
    processes,
    resolve,
    status,
    up,
)
from dlg_ml_tasks.stack.ports import Ports, is_free
from dlg_ml_tasks.stack.services import STACK_VARIABLE

pytestmark = pytest.mark.integration

NAMES = ["ngas", "mlflow", "node", "island", "translator", "web"]
BUSY_MACHINE_S = 240.0
"""Time to start in; other tests may want the processors too."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, remember_ports: Callable[..., Ports]) -> Iterator[Path]:
    """A home, with what a path may hold and a URL may not, whose stack is stopped at the end."""
    path = tmp_path_factory.mktemp("stack") / "my home #1 50%?"
    remember_ports(path)
    yield path
    down(path)


@pytest.fixture
def running(home: Path) -> StackState:
    """The stack, up."""
    return up(home, healthy_within_s=BUSY_MACHINE_S)


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(STACK_VARIABLE) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(service: ServiceState | None) -> None:
    assert service is not None
    psutil.Process(service.pid).kill()
    deadline = time.monotonic() + 60
    while processes.is_alive(service):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pids(state: StackState) -> dict[str, int]:
    return {service.name: service.pid for service in state.services}


def test_every_service_works_and_says_where(home: Path, running: StackState) -> None:
    report = status(home)
    assert report.healthy
    assert [service.name for service in report.services] == NAMES
    for service in report.services:
        assert service.state == "running"
        assert service.problem is None
        assert service.memory_mb is not None
        assert service.memory_mb > 10
        assert service.pid == pids(running)[service.name]


def test_the_addresses_lead_to_the_services(home: Path, running: StackState) -> None:
    addresses = resolve(home, {})
    host, port = addresses.require_island()
    (node,) = requests.get(f"http://{host}:{port}/api/nodes", timeout=20).json()
    ports = running.ports
    assert node == f"127.0.0.1:{ports['node']}:{ports['events']}:{ports['rpc']}"
    assert requests.get(f"{addresses.require_tracking_uri()}/version", timeout=20).ok
    assert requests.get(f"{addresses.require_translator()}/", timeout=20).ok


def test_artifacts_of_the_default_experiment_lie_in_the_embedded_archive(home: Path, running: StackState) -> None:
    url = f"{resolve(home, {}).tracking_uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
    location = requests.get(url, timeout=20).json()["experiment"]["artifact_location"]
    assert location == f"ngas://127.0.0.1:{running.ports['ngas']}/mlflow/0"


def test_everything_is_kept_under_the_home(home: Path, running: StackState) -> None:
    assert (home / "mlflow" / "mlflow.db").stat().st_size > 0
    assert {path.name for path in home.parent.iterdir()} == {home.name}
    for service in running.services:
        assert service.log.parent == home / "logs"


def test_nothing_listens_beyond_loopback(home: Path, running: StackState) -> None:
    listening = [
        connection.laddr
        for process in processes_of(home)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} >= set(running.ports.values())


def test_starting_a_running_stack_changes_nothing(home: Path, running: StackState) -> None:
    told: list[tuple[str, str]] = []
    again = up(home, on_progress=lambda service, message: told.append((service, message)))
    assert again == running == load_state(home)
    assert sorted(name for name, _ in told) == sorted(NAMES)
    assert all("already running" in message for _, message in told)


def test_killed_services_are_started_again_on_their_ports_and_the_others_left_alone(
    home: Path, running: StackState
) -> None:
    for name in ("mlflow", "node"):
        kill(running.get(name))
    states = {service.name: (service.state, service.healthy) for service in status(home).services}
    assert states["mlflow"] == states["node"] == ("dead", False)
    assert states["ngas"] == ("running", True)
    # MLflow's worker and the node manager's fork server outlive their parents; the worker keeps the port.
    orphans = processes_of(home)

    repaired = up(home, healthy_within_s=BUSY_MACHINE_S)

    assert repaired.ports == running.ports
    changed = {name for name in NAMES if pids(repaired)[name] != pids(running)[name]}
    assert changed == {"mlflow", "node"}
    untouched = ("ngas", "island", "translator", "web")
    assert {p.pid for p in orphans if p.is_running()} == {pids(running)[name] for name in untouched}
    assert status(home).healthy


def test_a_restarted_service_whose_port_was_taken_meanwhile_moves_and_takes_its_dependents_along(
    home: Path, running: StackState
) -> None:
    kill(running.get("node"))
    with closing(socket.create_server(("127.0.0.1", running.ports["events"]))):
        moved = up(home, healthy_within_s=BUSY_MACHINE_S)
    assert moved.ports["events"] != running.ports["events"]
    changed = {name for name in NAMES if pids(moved)[name] != pids(running)[name]}
    assert changed == {"node", "island"}
    assert status(home).healthy


def test_two_starts_at_once_make_one_stack(home: Path, running: StackState) -> None:
    kill(running.get("translator"))
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(up, home, healthy_within_s=BUSY_MACHINE_S) for _ in range(2)]
    assert calls[0].result() == calls[1].result() == load_state(home)
    assert len([p for p in processes_of(home) if "dlg_ml_tasks.components.translator" in p.cmdline()]) == 1


def test_a_service_that_hangs_is_named_and_the_others_go_on(home: Path, running: StackState) -> None:
    hanging = running.get("translator")
    assert hanging is not None
    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StackError, match=r"translator does not work after 1 s.*Stop the stack and start it again"):
            up(home, healthy_within_s=1)
        report = {service.name: service for service in status(home).services}
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    assert report["translator"].state == "running"
    assert "does not answer" in (report["translator"].problem or "")
    assert report["mlflow"].healthy


def test_after_a_stop_nothing_remains(home: Path, running: StackState) -> None:
    children = processes_of(home)
    assert len(children) > len(NAMES)
    assert down(home) == tuple(reversed(NAMES))
    assert processes_of(home) == []
    assert all(is_free(port) for port in running.ports.values())
    assert load_state(home) is None
    assert {service.state for service in status(home).services} == {"stopped"}
    assert down(home) == ()


def test_a_service_that_cannot_start_is_named_with_its_reason_and_log_and_nothing_remains(
    tmp_path: Path, remember_ports: Callable[..., Ports]
) -> None:
    ports = remember_ports(tmp_path)
    with EmbeddedNgas(tmp_path / "ngas"), pytest.raises(StackError) as raised:  # an archive has one server at a time
        up(tmp_path, healthy_within_s=BUSY_MACHINE_S)
    first, _, rest = str(raised.value).partition("\n")
    assert first == "ngas ended with code 1"
    assert str(tmp_path / "logs" / "ngas.log") in rest
    assert (tmp_path / "logs" / "ngas.log").read_text().strip() in rest.replace("\n    ", "\n").strip()
    assert processes_of(tmp_path) == []
    assert all(is_free(port) for port in ports.model_dump().values())
    assert load_state(tmp_path) is None


def test_a_start_that_is_interrupted_leaves_nothing_running(
    tmp_path: Path, remember_ports: Callable[..., Ports]
) -> None:
    remember_ports(tmp_path)

    def interrupt(service: str, message: str) -> None:
        if service == "ngas" and message.startswith("ready"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up(tmp_path, on_progress=interrupt, healthy_within_s=BUSY_MACHINE_S)
    assert processes_of(tmp_path) == []
    assert load_state(tmp_path) is None


def test_a_taken_archive_port_stops_the_start_before_anything_runs(
    tmp_path: Path, remember_ports: Callable[..., Ports], taken_port: int
) -> None:
    remember_ports(tmp_path, ngas=taken_port)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").touch()
    with pytest.raises(StackError, match=rf"ngas: port {taken_port} is held by process {os.getpid()}"):
        up(tmp_path)
    assert processes_of(tmp_path) == []


def test_a_home_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"cannot make .*DLG_ML_HOME"):
        up(tmp_path / "file" / "home")


def test_stopping_what_was_never_started_does_nothing(tmp_path: Path) -> None:
    assert down(tmp_path / "nowhere") == ()
    assert list(tmp_path.iterdir()) == []
