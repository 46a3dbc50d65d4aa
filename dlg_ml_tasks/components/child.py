"""The child process in which a task runs: what it is asked and what it tells, as JSON over a pipe; imports no engine.

A task has a process of its own because the engine runs applications in threads of the node manager, where a crash in native code
ends every session, and where a running training cannot be stopped. Only light tasks of one session (`Task.light`) may follow each
other in one process: a survey has thousands of them, and a process costs more than their work.

Asked (one JSON text per task): task, light, params, inputs, lost (inputs that will not come: port, copy), session, known (what an
earlier task of the session found out: experiment, session_run, stored), node, force, scratch (a folder that the node manager
removes at the end, so that a killed task leaves nothing behind).
Told (JSON messages): {"accepted"}, {"run_id"}, {"log"}, and last one of {"reference", "reused", "seconds", "known"},
{"error", "traceback"} and {"cancelled"}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from dlg_ml_tasks.tasks.environment import SCRATCH

GRACE_SECONDS = 4.0
"""From the request to stop until the process is killed: time to mark the run and to close files."""

_ABANDONED = signal.SIGUSR2
"""A process sends it to itself when the node manager is gone: nobody asked its task to stop, and a job of a cluster may go on."""

_GONE_WITHIN = 5.0
"""Seconds to wait for a message to go; it never goes where nobody is left to read it."""

IDLE_SECONDS = 5.0
"""How long a process waits for the next task of its session."""


def serve(pipe: Connection) -> None:
    """Run the tasks that are asked for, one after the other, until the pipe is closed or nothing is asked for a while.

    Target of the child process.
    """
    os.setsid()  # so that the task's own subprocesses (data loaders) can be killed with it
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(_ABANDONED, _abandon)
    asked: queue.Queue[str] = queue.Queue()
    scratch = _Scratch()
    threading.Thread(target=_receive, args=(pipe, asked, scratch), daemon=True).start()
    tell = _Teller(pipe)
    logger = logging.getLogger("dlg_ml_tasks")
    logger.setLevel(logging.INFO)
    logger.addHandler(tell)

    from dlg_ml_tasks.tasks import TaskCancelled

    with contextlib.suppress(queue.Empty, TaskCancelled):
        while True:
            request = json.loads(asked.get(timeout=IDLE_SECONDS))
            scratch.folder = request["scratch"]
            tell.send(accepted=True)
            _run(request, tell)
            scratch.folder = None
    tell.finish()


def _run(request: dict[str, Any], tell: _Teller) -> None:
    from dlg_ml_tasks.tasks import TaskCancelled, TaskError

    try:
        outcome = _call(request, tell)
    except TaskCancelled:
        tell.send(cancelled=True)
        raise
    except TaskError as error:
        tell.send(error=_one_line(error), traceback=None)
    except Exception as error:  # noqa: BLE001 (the process boundary: whatever a user's recipe raises is reported, not lost)
        tell.send(error=f"{type(error).__name__}: {_one_line(error)}", traceback=traceback.format_exc())
    else:
        tell.send(**outcome)


def end_run(run_id: str, status: str) -> None:
    """Set the status of an MLflow run whose process died. Target of a child process: the node manager itself imports no MLflow."""
    from dlg_ml_tasks.tracking.runs import end_run as end

    end(run_id, status)


def settle_session(session: str, status: str) -> None:
    """Say in MLflow how this node's part of a session ended; exits with code 1 if it cannot be said. Target of a child process."""
    from mlflow.exceptions import MlflowException

    from dlg_ml_tasks.tracking.errors import TrackingUnreachable
    from dlg_ml_tasks.tracking.sessions import settle_session as settle

    try:
        settle(session, status)
    except (MlflowException, TrackingUnreachable) as error:
        sys.exit(f"session {session} ended as {status}, and MLflow could not be told: {_one_line(error)}")


def _call(request: dict[str, Any], tell: _Teller) -> dict[str, Any]:
    from dlg_ml_tasks.tasks.batches import Lost
    from dlg_ml_tasks.tasks.catalogue import find_task
    from dlg_ml_tasks.tracking import Reference
    from dlg_ml_tasks.tracking.sessions import known_session_run, remember_session_run, remember_stored, stored
    from dlg_ml_tasks.tracking.store import known_experiment, remember_experiment

    session, known = request["session"], request["known"]
    if known:
        remember_experiment(known["experiment"])
        remember_session_run(session, known["session_run"])
        remember_stored(session, known["stored"])
    os.environ[SCRATCH] = request["scratch"]

    def tell_run(run_id: str) -> None:
        # Whatever becomes of this process, the node manager knows which run to end.
        tell.send(run_id=run_id).wait(_GONE_WITHIN)

    outcome = find_task(request["task"]).run(
        request["params"],
        {port: [Reference.model_validate(each) for each in given] for port, given in request["inputs"].items()},
        session=session,
        node=request["node"],
        force=request["force"],
        on_start=tell_run,
        lost=[Lost(**each) for each in request["lost"]],
    )
    return {
        "reference": outcome.reference.model_dump(),
        "reused": outcome.reused,
        "seconds": outcome.seconds,
        "known": {
            "experiment": known_experiment(),
            "session_run": known_session_run(session),
            "stored": stored(session),
        }
        if session
        else None,
    }


def _cancel(_signal: int, _frame: FrameType | None) -> None:
    from dlg_ml_tasks.tasks import TaskCancelled

    _ignore_more()
    raise TaskCancelled


def _abandon(_signal: int, _frame: FrameType | None) -> None:
    from dlg_ml_tasks.tasks import TaskAbandoned

    _ignore_more()
    raise TaskAbandoned


def _ignore_more() -> None:
    """A second signal must not interrupt the clean-up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(_ABANDONED, signal.SIG_IGN)


@dataclass
class _Scratch:
    """The running task's folder for temporary files; None while no task runs."""

    folder: str | None = None


def _receive(pipe: Connection, asked: queue.Queue[str], scratch: _Scratch) -> None:
    """Pass on what the node manager asks for, and end with it: the real parent is the fork server, and does not tell."""
    try:
        while True:
            asked.put(pipe.recv_bytes().decode())
    except (EOFError, OSError):
        if scratch.folder is None:
            os._exit(0)
        os.kill(os.getpid(), _ABANDONED)
        time.sleep(GRACE_SECONDS)
        shutil.rmtree(scratch.folder, ignore_errors=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _Teller(logging.Handler):
    """Sends messages to the node manager; as a log handler, also the task's log lines.

    A thread of its own writes to the pipe, because a cancellation may interrupt the main thread anywhere, and half a message would
    make the rest unreadable.
    """

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.INFO)
        self._pipe = pipe
        self._messages: queue.SimpleQueue[tuple[bytes, threading.Event] | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()

    def send(self, **message: object) -> threading.Event:
        """The event comes when the message has gone."""
        gone = threading.Event()
        self._messages.put((json.dumps(message).encode(), gone))
        return gone

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=record.getMessage())  # a traceback, if any, is kept with the MLflow run

    def finish(self) -> None:
        """Wait until everything is sent."""
        self._messages.put(None)
        self._sender.join()

    def _send_all(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is left to tell
            while (message := self._messages.get()) is not None:
                text, gone = message
                self._pipe.send_bytes(text)
                gone.set()
