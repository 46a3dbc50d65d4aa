"""Runs a task in a child process that can be stopped, and waits for it; imports no engine.

Children come from a fork server that has the heavy imports done: one starts in milliseconds instead of seconds.
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

PRELOAD = (
    "torch",
    "lightning",
    "mlflow",
    "dlg_ml_tasks.tasks",
    "dlg_ml_tasks.tracking.runs",
    "dlg_ml_tasks.components.child",
)
"""What the fork server imports before it serves."""

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read once, when the libraries are loaded; a task that is given more threads raises torch's own limit."""

_POLL_SECONDS = 0.2
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOAD))

# multiprocessing polls all of a program's children whenever it starts one; two threads that read the same child's exit code at the
# same time make one of them see 255.
_processes = threading.Lock()
_stopping = threading.Event()


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
    with tempfile.TemporaryDirectory(prefix="dlg-ml-", dir=os.environ.get(SCRATCH)) as scratch:
        return _run({**request, "scratch": scratch}, on_log, on_traceback, cancelled)


def _run(
    request: dict[str, Any],
    on_log: Callable[[str], None],
    on_traceback: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> Finished:
    watched = _Child(request)
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
                return Finished(Reference.model_validate(message["reference"]), message["reused"], message["seconds"])
    finally:
        watched.reap()
    watched.mark_killed()
    if watched.stop_deadline is not None:
        raise TaskStopped(f"{request['task']} was stopped")
    raise TaskFailed(f"{request['task']} ended without a result: its process {_describe_exit(watched.exit_code)}")


class _Child:
    """A child process that runs a task, and the reading end of its pipe."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.run_id: str | None = None
        self.exit_code: int | None = None
        self.stop_deadline: float | None = None
        self._pipe, theirs = _context.Pipe()
        self._process = _start(child.run_task, theirs, json.dumps(request))
        theirs.close()

    def messages(self, must_stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """All messages until the process has ended; stops the process, first gently, once `must_stop` is true."""
        while True:
            if self._pipe.poll(_POLL_SECONDS):
                try:
                    yield json.loads(self._pipe.recv_bytes())
                except (EOFError, ConnectionResetError):
                    return
            elif self._ended():
                return
            if self.stop_deadline is None and must_stop():
                self._process.terminate()
                self.stop_deadline = time.monotonic() + child.GRACE_SECONDS
            elif self.stop_deadline is not None and time.monotonic() > self.stop_deadline:
                self._kill()

    def reap(self) -> None:
        """Wait for the process to end, kill it if it does not, and free what it held."""
        deadline = self.stop_deadline or time.monotonic() + child.GRACE_SECONDS
        while not self._ended():
            if time.monotonic() > deadline:
                self._kill()
            time.sleep(0.01)
        with _processes:
            self._process.close()
        self._pipe.close()

    def mark_killed(self) -> None:
        """End the MLflow run that the process left behind, if any; in a child, to keep MLflow out of the node manager."""
        if self.run_id is None:
            return
        process = _start(child.end_run, self.run_id, "KILLED")
        deadline = time.monotonic() + 30
        while _exit_code(process) is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _ended(self) -> bool:
        if self.exit_code is None:
            self.exit_code = _exit_code(self._process)
        return self.exit_code is not None

    def _kill(self) -> None:
        pid = self._process.pid
        if pid is None or self._ended():
            return
        try:
            os.killpg(pid, signal.SIGKILL)  # with the subprocesses of the task
        except ProcessLookupError:
            self._process.kill()  # it had not yet made its own group


def _start(target: Callable[..., None], *args: str | Connection) -> Any:
    with _processes:
        process = _context.Process(target=target, args=args)
        process.start()
        return process


def _exit_code(process: Any) -> int | None:
    with _processes:
        code: int | None = process.exitcode
        return code


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"ended with exit code {code}"
