"""Starting, recognising and ending the processes of a service, each in a session of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from dlg_ml_tasks.stack.ports import LOOPBACK
from dlg_ml_tasks.stack.services import STACK_VARIABLE, Service
from dlg_ml_tasks.stack.state import ServiceState

# psutil derives a process's creation time from the machine's boot time, which moves when the clock is corrected.
_CLOCK_TOLERANCE_S = 2.0

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Services that this very process started: their exit must be collected, or they stay behind as zombies."""


def start(service: Service, log: Path) -> ServiceState:
    """Start `service` in a session of its own, so that no signal meant for the terminal reaches it.

    Its output goes to `log`; the log of the start before is kept beside it, as ``NAME.log.1``.
    """
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - the command is built in services.py from no one's input
            service.command,
            cwd=service.directory,
            env=dict(service.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return ServiceState(
        name=service.name,
        pid=child.pid,
        started=psutil.Process(child.pid).create_time(),
        host=LOOPBACK,
        ports=dict(service.ports),
        url=service.url,
        log=log,
    )


def is_alive(service: ServiceState) -> bool:
    """Whether the very process that was started still runs, and not another one that got its number."""
    return _leader(service) is not None


def exit_code(service: ServiceState) -> int | None:
    """The exit code of a dead service (negative: the signal), where this process started it and so can know."""
    child = _children.get(service.pid)
    return child.poll() if child else None


def memory_mb(service: ServiceState) -> float:
    """Resident memory of the service and all its children, in 10^6 bytes; shared pages count once per process."""
    total = 0
    for process in _members(service):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 1e6


def listening_ports(service: ServiceState) -> set[int]:
    """The TCP ports on which the service or one of its children listens."""
    found: set[int] = set()
    for process in _members(service):
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def stop(service: ServiceState, grace_s: float) -> bool:
    """End the service and everything it started; True if anything still ran.

    The service itself gets SIGTERM and `grace_s` seconds to end its own children in order; what is left of its
    session after that, or was left by a service that was killed, gets SIGTERM and then SIGKILL.
    """
    members = _members(service)
    leader = _leader(service)
    if leader is not None:
        _end([leader], grace_s)
    # Also what the service started while it was ending.
    _end({*members, *_members(service)}, min(grace_s, 2.0))
    if (child := _children.get(service.pid)) and child.poll() is not None:
        del _children[service.pid]
    return bool(members)


def _end(processes: Iterable[psutil.Process], grace_s: float) -> None:
    remaining = [p for p in processes if not _has_ended(p)]
    for process in remaining:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    remaining = _wait(remaining, grace_s)
    for process in remaining:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(remaining, 5.0)


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for `processes` to end; those that have not within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while (remaining := [p for p in processes if not _has_ended(p)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return remaining


def _leader(service: ServiceState) -> psutil.Process | None:
    try:
        process = psutil.Process(service.pid)
        same = abs(process.create_time() - service.started) < _CLOCK_TOLERANCE_S
    except psutil.NoSuchProcess:
        return None
    return process if same and not _has_ended(process) else None


def _members(service: ServiceState) -> list[psutil.Process]:
    """The processes of the service's session: itself, and what it started even where its parent is gone.

    A session keeps its number, the process id of its leader, for as long as it has members, but once the leader is
    gone and all are gone the number may be another session's. So without the leader each one has to prove by its
    environment that it belongs to a stack.
    """
    leader = _leader(service)
    found: dict[int, psutil.Process] = {}
    if leader is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = {p.pid: p for p in (leader, *leader.children(recursive=True))}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if pid not in found and os.getsid(pid) == service.pid:
                process = psutil.Process(pid)
                if not _has_ended(process) and (leader is not None or STACK_VARIABLE in process.environ()):
                    found[pid] = process
    return list(found.values())


def _has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone or a zombie: a container's first process may collect its orphans late or never.

    A process with threads is shown as a zombie while they still end, with its ports still open.
    """
    if child := _children.get(process.pid):
        child.poll()
    try:
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True
