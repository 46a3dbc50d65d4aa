"""Recognising and ending processes, with real ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dlg_ml_tasks.stack import ServiceState, processes
from dlg_ml_tasks.stack.services import STACK_VARIABLE, Service

FOREVER = "import time; time.sleep(600)"
IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); time.sleep(600)"
WITH_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1); import time; time.sleep(600)'])"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServiceState]]:
    """Starts a Python program as a service and waits until it has printed something."""
    started: list[ServiceState] = []

    def begin(code: str, *, waits_for_output: bool = False, marked: bool = True) -> ServiceState:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **({STACK_VARIABLE: "/h"} if marked else {})}
        service = Service("ngas", (sys.executable, "-c", code), tmp_path, environment, {}, "http://127.0.0.1:1")
        started.append(processes.start(service, tmp_path / "s.log"))
        until(lambda: not waits_for_output or bool((tmp_path / "s.log").read_text()))
        return started[-1]

    yield begin
    for service in started:
        for process in session(service.pid):
            process.kill()
        processes.stop(service, 1)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def session(number: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def test_a_started_service_is_alive_until_it_is_stopped(start: Callable[..., ServiceState]) -> None:
    service = start("print(1); " + FOREVER, waits_for_output=True)
    assert processes.is_alive(service)
    assert processes.memory_mb(service) > 1
    assert processes.stop(service, 10)
    assert not processes.is_alive(service)
    assert not psutil.pid_exists(service.pid), "a zombie is left"
    assert not processes.stop(service, 10)


def test_a_service_has_a_session_of_its_own(start: Callable[..., ServiceState]) -> None:
    service = start(FOREVER)
    assert os.getsid(service.pid) == service.pid


def test_a_process_that_got_a_dead_services_number_is_neither_alive_nor_stopped(
    start: Callable[..., ServiceState],
) -> None:
    service = start(FOREVER, marked=False)
    record_of_a_dead_one = service.model_copy(update={"started": service.started - 60})
    assert not processes.is_alive(record_of_a_dead_one)
    assert not processes.stop(record_of_a_dead_one, 1)
    assert processes.is_alive(service)


def test_a_service_that_died_unwaited_for_is_dead(start: Callable[..., ServiceState]) -> None:
    service = start(FOREVER)
    os.kill(service.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(service))
    assert processes.exit_code(service) == -signal.SIGKILL


def test_the_exit_code_of_a_service_that_another_process_started_is_unknown(tmp_path: Path) -> None:
    gone = ServiceState(name="ngas", pid=2**22 + 1, started=1.0, host="", ports={}, url="", log=tmp_path / "l")
    assert not processes.is_alive(gone)
    assert processes.exit_code(gone) is None


def test_a_service_that_ignores_sigterm_is_killed(start: Callable[..., ServiceState]) -> None:
    service = start(IGNORES_SIGTERM, waits_for_output=True)
    assert processes.stop(service, 0.2)
    assert not processes.is_alive(service)


def test_the_children_of_a_service_end_with_it(start: Callable[..., ServiceState]) -> None:
    service = start(WITH_CHILD, waits_for_output=True)
    assert len(session(service.pid)) == 2
    processes.stop(service, 10)
    assert session(service.pid) == []


def test_the_children_that_a_killed_service_left_behind_are_ended(start: Callable[..., ServiceState]) -> None:
    service = start(WITH_CHILD, waits_for_output=True)
    os.kill(service.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(service))
    assert len(session(service.pid)) == 1
    assert processes.stop(service, 10)
    assert session(service.pid) == []


def test_another_programs_session_with_a_dead_services_number_is_left_alone(
    start: Callable[..., ServiceState],
) -> None:
    another = start(WITH_CHILD, waits_for_output=True, marked=False)
    os.kill(another.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(another))
    assert not processes.stop(another, 1)
    assert len(session(another.pid)) == 1


def test_the_log_of_the_start_before_is_kept(start: Callable[..., ServiceState]) -> None:
    first = start("print('first'); " + FOREVER, waits_for_output=True)
    start("print('second'); " + FOREVER, waits_for_output=True)
    assert first.log.read_text() == "second\n"
    assert first.log.with_name("s.log.1").read_text() == "first\n"


def test_the_ports_of_a_services_children_are_found(start: Callable[..., ServiceState]) -> None:
    listen = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); time.sleep(600)"
    )
    service = start(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {listen!r}])", waits_for_output=True
    )
    assert processes.listening_ports(service) == {int(service.log.read_text())}


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        processes.start(Service("ngas", ("/no/such/program",), tmp_path, {}, {}, ""), tmp_path / "s.log")
