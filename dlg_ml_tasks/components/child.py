"""The child process in which one task runs: what it is asked and what it tells, as JSON over a pipe; imports no engine.

A task has a process of its own because the engine runs applications in threads of the node manager, where a crash in native code
ends every session, and where a running training cannot be stopped.

Asked (one JSON text): task, params, inputs, session, node, force, scratch (a folder that the node manager removes at the end, so
that a killed task leaves nothing behind).
Told (JSON messages): {"run_id"}, {"log"}, and last one of {"reference", "reused", "seconds"}, {"error", "traceback"} and
{"cancelled"}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from dlg_ml_tasks.tasks.environment import SCRATCH

GRACE_SECONDS = 4.0
"""From the request to stop until the process is killed: time to mark the run and to close files."""


def run_task(pipe: Connection, request: str) -> None:
    """Run the task that `request` describes and tell `pipe` how it went. Target of the child process."""
    os.setsid()  # so that the task's own subprocesses (data loaders) can be killed with it
    signal.signal(signal.SIGTERM, _cancel)
    asked = json.loads(request)
    threading.Thread(target=_die_with_parent, args=(pipe, asked["scratch"]), daemon=True).start()
    tell = _Teller(pipe)
    logger = logging.getLogger("dlg_ml_tasks")
    logger.setLevel(logging.INFO)
    logger.addHandler(tell)

    from dlg_ml_tasks.tasks import TaskCancelled, TaskError

    try:
        outcome = _call(asked, tell)
    except TaskCancelled:
        tell.send(cancelled=True)
    except TaskError as error:
        tell.send(error=_one_line(error), traceback=None)
    except Exception as error:  # noqa: BLE001 (the process boundary: whatever a user's recipe raises is reported, not lost)
        tell.send(error=f"{type(error).__name__}: {_one_line(error)}", traceback=traceback.format_exc())
    else:
        tell.send(**outcome)
    tell.finish()


def end_run(run_id: str, status: str) -> None:
    """Set the status of an MLflow run whose process died. Target of a child process: the node manager itself imports no MLflow."""
    from dlg_ml_tasks.tracking.runs import end_run as end

    end(run_id, status)


def _call(request: dict[str, Any], tell: _Teller) -> dict[str, Any]:
    from dlg_ml_tasks.tasks import TASKS
    from dlg_ml_tasks.tracking import Reference

    os.environ[SCRATCH] = request["scratch"]
    outcome = TASKS[request["task"]].run(
        request["params"],
        {port: [Reference.model_validate(each) for each in given] for port, given in request["inputs"].items()},
        session=request["session"],
        node=request["node"],
        force=request["force"],
        on_start=lambda run_id: tell.send(run_id=run_id),
    )
    return {"reference": outcome.reference.model_dump(), "reused": outcome.reused, "seconds": outcome.seconds}


def _cancel(_signal: int, _frame: FrameType | None) -> None:
    from dlg_ml_tasks.tasks import TaskCancelled

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise TaskCancelled


def _die_with_parent(pipe: Connection, scratch: str) -> None:
    """The node manager never writes to the pipe: what ends the read is its death (the real parent is the fork server)."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        shutil.rmtree(scratch, ignore_errors=True)
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
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()

    def send(self, **message: object) -> None:
        self._messages.put(json.dumps(message).encode())

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=record.getMessage())  # a traceback, if any, is kept with the MLflow run

    def finish(self) -> None:
        """Wait until everything is sent."""
        self._messages.put(None)
        self._sender.join()

    def _send_all(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is left to tell
            while (message := self._messages.get()) is not None:
                self._pipe.send_bytes(message)
