"""Runs a task in a child process that can be stopped, and waits for it; imports no engine.

Children come from a fork server that has the heavy imports done: one starts in milliseconds instead of seconds. Light tasks of a
session follow each other in the same children, as long as there are some.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dlg_ml_tasks.components import child
from dlg_ml_tasks.tasks.environment import SCRATCH
from dlg_ml_tasks.tracking import Reference

PRELOAD = ("dlg_ml_tasks.components.warm",)
"""What the fork server imports before it serves."""

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read once, when the libraries are loaded; a task that is given more threads raises torch's own limit."""

_POLL_SECONDS = 0.2
_TELL_WITHIN = 30.0
_MOST_TASKS = 50
"""Tasks in one process, so that what a recipe leaks stays small."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOAD))

# multiprocessing polls all of a program's children whenever it starts one; two threads that read the same child's exit code at the
# same time make one of them see 255.
_processes = threading.Lock()
_stopping = threading.Event()

_known: dict[str, dict[str, str]] = {}
"""By session, what a task has found out in MLflow and thousands more need not search for."""


class TaskFailed(Exception):
    """The task did not succeed; one line says why."""


class TaskStopped(Exception):
    """The task was stopped because its session was cancelled or the node manager ends."""


@dataclass(frozen=True)
class Finished:
    """What a task's child process reported at its end. `seconds` is the duration of the run that did the work."""

    reference: Reference
    reused: bool
    seconds: float


def start_server() -> None:
    """Start the fork server, so that its imports are done by the time the first task comes.

    Sets the limits of numerical libraries' threads to 1 in this process and in all children.
    """
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    multiprocessing.forkserver.ensure_running()


def stop_all() -> None:
    """Make every running task stop, now and from now on; for the end of the node manager."""
    _stopping.set()
    _idle.clear()


def run(
    request: dict[str, Any],
    *,
    on_log: Callable[[str], None],
    on_traceback: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> Finished:
    """Run the task that `request` (see `child`) describes and wait for it.

    `on_log` gets the task's log lines, `on_traceback` the traceback of an error that is a bug; `cancelled` is asked every 0.2 s.
    Raises TaskFailed (one line) if the task failed or its process was killed, TaskStopped once it was cancelled and has ended.
    """
    if cancelled() or _stopping.is_set():
        # Thousands of tasks may have been waiting for their turn.
        raise TaskStopped(f"{request['task']} was stopped before it began")
    with tempfile.TemporaryDirectory(prefix="dlg-ml-", dir=os.environ.get(SCRATCH)) as scratch:
        more = {"scratch": scratch, "known": _known.get(request["session"])}
        return _run({**request, **more}, on_log, on_traceback, cancelled)


def settle_session(session: str, status: str) -> bool:
    """Say in MLflow how this node's part of a session ended; whether that succeeded."""
    return _tell_tracking(child.settle_session, session, status)


def _run(
    request: dict[str, Any],
    on_log: Callable[[str], None],
    on_traceback: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> Finished:
    watched, waits = _begin(request), False
    try:
        for message in watched.messages(lambda: cancelled() or _stopping.is_set()):
            if "log" in message:
                on_log(message["log"])
            elif "run_id" in message:
                watched.run_id = message["run_id"]
            elif "error" in message:
                if message["traceback"]:
                    on_traceback(message["traceback"])
                raise TaskFailed(message["error"])
            elif "reference" in message:
                if message["known"]:
                    _known[request["session"]] = message["known"]
                waits = _may_follow(request) and watched.served < _MOST_TASKS and watched.stop_deadline is None
                return Finished(Reference.model_validate(message["reference"]), message["reused"], message["seconds"])
    finally:
        if waits:
            _idle.put(request["session"], watched)
        else:
            watched.reap()
    watched.mark_killed()
    if watched.stop_deadline is not None:
        raise TaskStopped(f"{request['task']} was stopped")
    raise TaskFailed(f"{request['task']} ended without a result: its process {_describe_exit(watched.exit_code)}")


def _may_follow(request: dict[str, Any]) -> bool:
    """Whether the task may run in a process that has run others of its session."""
    return bool(request["light"] and request["session"])


def _begin(request: dict[str, Any]) -> _Child:
    """A child that has accepted the request."""
    if _may_follow(request):
        while (waiting := _idle.take(request["session"])) is not None:
            if waiting.asked(request):
                return waiting
            waiting.reap()  # it has stopped waiting in this moment
    fresh = _Child()
    fresh.asked(request)
    return fresh


class _Child:
    """A child process that runs a task, and the reading end of its pipe."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.exit_code: int | None = None
        self.stop_deadline: float | None = None
        self.served = 0
        self._pipe, theirs = _context.Pipe()
        self._process = _start(child.serve, theirs)
        theirs.close()

    def asked(self, request: dict[str, Any]) -> bool:
        """Ask for a task; whether the child has accepted, or the first one to come is still to be seen to."""
        self.run_id = None
        self.served += 1
        try:
            self._pipe.send_bytes(json.dumps(request).encode())
            return self.served == 1 or bool(json.loads(self._pipe.recv_bytes())["accepted"])
        except (EOFError, OSError):
            return False

    def messages(self, must_stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """All messages until the process has ended; stops the process, first gently, once `must_stop` is true."""
        while True:
            if self._pipe.poll(_POLL_SECONDS):
                try:
                    yield json.loads(self._pipe.recv_bytes())
                except (EOFError, ConnectionResetError):
                    return
            elif self.has_ended() and not self._pipe.poll():
                # Asked again, because what it said last, perhaps the id of its run, may have come since.
                return
            if self.stop_deadline is None and must_stop():
                self._process.terminate()
                self.stop_deadline = time.monotonic() + child.GRACE_SECONDS
            elif self.stop_deadline is not None and time.monotonic() > self.stop_deadline:
                self._kill()

    def reap(self) -> None:
        """End the process, kill it if it does not, and free what it held."""
        self._pipe.close()  # a child that waits for its next task ends with this
        deadline = self.stop_deadline or time.monotonic() + child.GRACE_SECONDS
        while not self.has_ended():
            if time.monotonic() > deadline:
                self._kill()
            time.sleep(0.01)
        with _processes:
            self._process.close()

    def mark_killed(self) -> None:
        """End the MLflow run that the process left behind, if any; in a child, to keep MLflow out of the node manager."""
        if self.run_id is None:
            return
        _tell_tracking(child.end_run, self.run_id, "KILLED")

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        if self.exit_code is None:
            self.exit_code = _exit_code(self._process)
        return self.exit_code is not None

    def _kill(self) -> None:
        pid = self._process.pid
        if pid is None or self.has_ended():
            return
        try:
            os.killpg(pid, signal.SIGKILL)  # with the subprocesses of the task
        except ProcessLookupError:
            self._process.kill()  # it had not yet made its own group


class _Idle:
    """Children that wait for the next light task of their session, and end by themselves when none comes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._children: list[tuple[str, _Child]] = []

    def put(self, session: str, idle: _Child) -> None:
        with self._guard:
            self._children.append((session, idle))

    def take(self, session: str) -> _Child | None:
        """One of the session's, if any; frees what has ended meanwhile."""
        with self._guard:
            ended = [each for each in self._children if each[1].has_ended()]
            self._children = [each for each in self._children if each not in ended]
            found = next((each for each in self._children if each[0] == session), None)
            if found:
                self._children.remove(found)
        for _, each in ended:
            each.reap()
        return found[1] if found else None

    def clear(self) -> None:
        """End all that wait."""
        with self._guard:
            children, self._children = self._children, []
        for _, each in children:
            each.reap()


_idle = _Idle()


def _start(target: Callable[..., None], *args: str | Connection) -> Any:
    with _processes:
        process = _context.Process(target=target, args=args)
        process.start()
        return process


def _tell_tracking(target: Callable[..., None], *args: str) -> bool:
    """Call a function in a child, which keeps MLflow out of the node manager; whether it succeeded within 30 s."""
    process = _start(target, *args)
    deadline = time.monotonic() + _TELL_WITHIN
    while (code := _exit_code(process)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if code is None:
        process.kill()
    return code == 0


def _exit_code(process: Any) -> int | None:
    with _processes:
        code: int | None = process.exitcode
        return code


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"ended with exit code {code}"
