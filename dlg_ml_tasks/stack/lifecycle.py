"""Starting, stopping and asking after the embedded stack: NGAS, MLflow and DALiuGE on one machine, loopback only."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict

from dlg_ml_tasks.stack import health, processes
from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.ports import Ports, choose_ports, holder, is_free
from dlg_ml_tasks.stack.services import TRACKING_VARIABLE, Service, database, directories, logs, services
from dlg_ml_tasks.stack.state import ServiceName, ServiceState, StackState, load_state, names, save_state

HEALTHY_WITHIN_S = 120.0
STOPPED_WITHIN_S = 10.0

Progress = Callable[[str, str], None]
"""Called with a service's name and what became of it."""


class ServiceStatus(BaseModel):
    """How one service is.

    ``stopped``: not started; ``dead``: started, and its process is gone; ``running``: its process is there. Only
    `healthy` says that it also does its work; where it does not, `problem` says why. `memory_mb` is the resident
    memory of the service with its children, in 10^6 bytes.
    """

    model_config = ConfigDict(frozen=True)

    name: ServiceName
    state: Literal["running", "dead", "stopped"]
    healthy: bool = False
    problem: str | None = None
    url: str | None = None
    pid: int | None = None
    memory_mb: float | None = None
    log: Path | None = None


class StackStatus(BaseModel):
    """How the stack of one home is."""

    model_config = ConfigDict(frozen=True)

    home: Path
    services: tuple[ServiceStatus, ...]

    @property
    def healthy(self) -> bool:
        """Whether every service does its work."""
        return all(service.healthy for service in self.services)


def up(
    home: Path,
    *,
    on_progress: Progress = lambda service, message: None,
    healthy_within_s: float = HEALTHY_WITHIN_S,
    environ: Mapping[str, str] = os.environ,
    nodes: int | None = None,
) -> StackState:
    """Start every service of `home` that does not run, and return when all of them do their work.

    All start at once: MLflow's first start takes as long as all the others together, and nobody needs more of another
    service than its port. Services that run are left alone. A service that died is started again on its old ports.

    Args:
        home: the directory that holds the stack's data, logs and record; made if absent.
        on_progress: called with a service's name and a short message, from the calling thread.
        healthy_within_s: seconds a service may take until it does its work.
        environ: the environment that the services inherit.
        nodes: how many node managers; by default as many as run or died, one in a new stack. What is too many is stopped.

    Raises:
        StackError: a service did not start; what this call has started is stopped again.
    """
    _require_resolvable_host_name()
    _make(home)
    with _lock(home, wait_s=healthy_within_s + 3 * STOPPED_WITHIN_S):
        before = load_state(home) or StackState(home=home)
        count = nodes or before.nodes or 1
        _make(*directories(home, count))
        return _start_missing(before, count, on_progress, healthy_within_s, environ)


def down(
    home: Path,
    *,
    on_progress: Progress = lambda service, message: None,
    stopped_within_s: float = STOPPED_WITHIN_S,
) -> tuple[str, ...]:
    """Stop every service of `home`, the last started first, and return the names of those that ran.

    A service that does not end within `stopped_within_s` seconds is killed. Only processes that this stack started
    are touched: a process that merely got the number of a dead one is left alone.
    """
    if not home.is_dir():
        return ()
    with _lock(home, wait_s=HEALTHY_WITHIN_S + 3 * STOPPED_WITHIN_S):
        state = load_state(home)
        if state is None:
            return ()
        return _stop(state, state.services, on_progress, stopped_within_s)


def status(home: Path) -> StackStatus:
    """How each service of `home` is; asks each one that runs."""
    state = load_state(home) or StackState(home=home)
    return StackStatus(home=home, services=tuple(_status(name, state.get(name)) for name in names(state.nodes or 1)))


def _status(name: ServiceName, service: ServiceState | None) -> ServiceStatus:
    if service is None:
        return ServiceStatus(name=name, state="stopped")
    if not processes.is_alive(service):
        return ServiceStatus(
            name=name, state="dead", problem=f"process {service.pid} is gone", url=service.url, log=service.log
        )
    problem = _problem(service)
    return ServiceStatus(
        name=name,
        state="running",
        healthy=problem is None,
        problem=problem,
        url=service.url,
        pid=service.pid,
        memory_mb=round(processes.memory_mb(service), 1),
        log=service.log,
    )


def _make(*wanted: Path) -> None:
    try:
        for directory in wanted:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"cannot make {error.filename}: {error.strerror}. Set DLG_ML_HOME to another place."
        ) from error


def _start_missing(
    before: StackState, nodes: int, on_progress: Progress, healthy_within_s: float, environ: Mapping[str, str]
) -> StackState:
    home = before.home
    state = _without_dead(before, on_progress)
    ports = choose_ports(home, state.ports, archive_is_fixed=database(home).exists(), nodes=nodes)
    plan = services(home, ports, environ, nodes=nodes)
    state = _without_outdated(state, plan, before.ports, ports, on_progress)

    running = {service.name for service in state.services}
    started: list[ServiceState] = []
    try:
        for service in plan:
            if service.name in running:
                continue
            on_progress(service.name, "starting" + _elsewhere(service, environ))
            started.append(processes.start(service, logs(home) / f"{service.name}.log"))
            # At once, so that a stack whose start is cut short can be taken up or stopped by the next call.
            state = state.with_service(started[-1])
            save_state(state)
        _wait_until_healthy(state.services, running, healthy_within_s, on_progress)
    except BaseException:
        _stop(state, started, on_progress, STOPPED_WITHIN_S)
        raise
    return state


def _elsewhere(service: Service, environ: Mapping[str, str]) -> str:
    # Not the address itself: it may hold a password.
    if service.name != "node" or not environ.get(TRACKING_VARIABLE):
        return ""
    return f"; its tasks record where {TRACKING_VARIABLE} says"


def _without_dead(state: StackState, on_progress: Progress) -> StackState:
    """Drop the services whose process is gone, and end the children that a killed one left behind."""
    for service in state.services:
        if not processes.is_alive(service):
            on_progress(service.name, f"process {service.pid} is gone")
            processes.stop(service, STOPPED_WITHIN_S)
            state = state.without(service.name)
    return state


def _without_outdated(
    state: StackState, plan: Iterable[Service], old: Mapping[str, int], new: Ports, on_progress: Progress
) -> StackState:
    """Stop the services that were told a port which is another one now, and those that are not wanted any more."""
    plan = tuple(plan)
    surplus = [service for service in state.services if service.name not in {wanted.name for wanted in plan}]
    outdated = [
        service
        for wanted in reversed(plan)
        if (service := state.get(wanted.name))
        and (
            any(old.get(role) != port for role, port in new.of(*wanted.needs).items())
            or (wanted.name == "island" and surplus)
        )
    ]
    outdated += surplus
    _stop(state, outdated, on_progress, STOPPED_WITHIN_S)
    return state.without(*(service.name for service in outdated))


def _wait_until_healthy(
    waiting: Iterable[ServiceState], ran_before: Set[str], within_s: float, on_progress: Progress
) -> None:
    begun = time.monotonic()
    pending = list(waiting)
    while pending:
        for service in tuple(pending):
            problem = _problem(service)
            elapsed = time.monotonic() - begun
            if not processes.is_alive(service):
                raise _failed(service, _how_it_ended(service))
            if problem is None:
                when = "already running" if service.name in ran_before else f"ready after {elapsed:.1f} s"
                on_progress(service.name, f"{when} at {service.url}")
                pending.remove(service)
            elif elapsed > within_s:
                remedy = " Stop the stack and start it again." if service.name in ran_before else ""
                raise _failed(service, f"does not work after {within_s:.0f} s: {problem}.{remedy}")
        time.sleep(0.1)


def _problem(service: ServiceState) -> str | None:
    try:
        health.check(service.name, service.host, service.ports)
    except health.Unhealthy as unhealthy:
        return str(unhealthy)
    # Another program on this port could have answered in its place.
    missing = sorted(set(service.ports.values()) - processes.listening_ports(service))
    return f"it does not listen on port {', '.join(map(str, missing))}" if missing else None


def _how_it_ended(service: ServiceState) -> str:
    code = processes.exit_code(service)
    ended = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    taken = [port for port in service.ports.values() if not is_free(port)]
    return ended + "".join(f"; port {port} is held by {holder(port)}" for port in taken)


def _failed(service: ServiceState, reason: str) -> StackError:
    lines = service.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    shown = "\n".join(f"    {line}" for line in lines) or "    (empty)"
    return StackError(f"{service.name} {reason}\nThe end of its log, {service.log}:\n{shown}")


def _stop(
    state: StackState, which: Iterable[ServiceState], on_progress: Progress, stopped_within_s: float
) -> tuple[str, ...]:
    stopped = []
    for service in reversed(tuple(which)):
        if processes.stop(service, stopped_within_s):
            on_progress(service.name, "stopped")
            stopped.append(service.name)
        state = state.without(service.name)
        save_state(state)
    return tuple(stopped)


@contextmanager
def hold(home: Path, wait_s: float) -> Iterator[None]:
    """One start, stop or restore at a time per home; the lock goes with the process that holds it.

    Raises:
        StackError: another one has held it for `wait_s` seconds.
        OSError: there can be no lock under `home`.
    """
    path = home / "lock"
    with path.open("a") as file:
        _acquire(file, path, wait_s)
        yield


@contextmanager
def _lock(home: Path, wait_s: float) -> Iterator[None]:
    try:
        with hold(home, wait_s):
            yield
    except OSError as error:
        raise StackError(f"the stack's files under {home} cannot be used: {error}") from error


def _acquire(file: IO[str], path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StackError(
                    f"another start, stop or restore of this stack has held {path} for {wait_s:.0f} s. "
                    "Wait for it to end, or end it, and try again."
                ) from None
            time.sleep(0.1)


def _require_resolvable_host_name() -> None:
    """DALiuGE looks up the machine's own name for every session's log file, and fails the session if it cannot."""
    name = socket.gethostname()
    try:
        socket.gethostbyname(name)
    except OSError as error:
        raise StackError(
            f"this machine's own name, {name!r}, does not resolve, and DALiuGE needs it to run a graph. "
            f"Add a line '127.0.0.1 {name}' to /etc/hosts."
        ) from error
