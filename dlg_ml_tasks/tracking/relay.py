"""Between a run's work on another machine and who waits for it: log lines and a request to stop, by way of the tracking server.

The server is the one place that both reach: nothing else need be open or shared between a cluster's nodes and the machine that
submitted.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.failures import reason_of
from dlg_ml_tasks.tracking.reference import Reference
from dlg_ml_tasks.tracking.store import reachable_client
from dlg_ml_tasks.tracking.tags import LOG, OUTPUT, PROGRESS, STOP

_SEND_SECONDS = 2.0
_LOOK_EVERY = 5
"""Sending rounds between two looks whether to stop."""
_MOST_CHARACTERS = 7000
"""Of log lines in the tag, whose length MLflow limits to 8000."""

UNREACHABLE = (MlflowException, TrackingUnreachable, requests.RequestException, ConnectionError)
"""What the tracking server's absence looks like."""


class LogRelay(logging.Handler):
    """Keeps the last lines of the log in a tag of the run, and calls `on_stop` once if the run asks for it.

    A line that does not fit is not lost: the whole log is among the run's artifacts at the end.
    """

    def __init__(self, run_id: str, on_stop: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._run_id = run_id
        self._on_stop = on_stop
        self._source = uuid.uuid4().hex[:8]
        self._lines: deque[str] = deque()
        self._count = 0
        self._size = 0
        self._sent = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line for the next sending."""
        text = record.getMessage()[: _MOST_CHARACTERS // 2]
        self._lines.append(text)
        self._count += 1
        self._size += len(json.dumps(text)) + 2
        while self._size > _MOST_CHARACTERS:
            self._size -= len(json.dumps(self._lines.popleft())) + 2

    def finish(self) -> None:
        """Send what is left."""
        self._ends.set()
        self._thread.join()

    def _send_all(self) -> None:
        rounds, stopped = 0, False
        while not self._ends.is_set():
            self._ends.wait(_SEND_SECONDS)
            rounds += 1
            try:
                self._send()
                if not stopped and rounds % _LOOK_EVERY == 0 and self._must_stop():
                    stopped = True
                    self._on_stop()
            except UNREACHABLE:
                continue  # it may come back; the work itself will say so if it needs the server

    def _must_stop(self) -> bool:
        return bool(reachable_client().get_run(self._run_id).data.tags.get(STOP))

    def _send(self) -> None:
        # `emit` runs under the handler's lock.
        with self.lock or threading.RLock():
            count, lines = self._count, list(self._lines)
        if count > self._sent:
            value = json.dumps({"source": self._source, "count": count, "lines": lines})
            reachable_client().set_tag(self._run_id, LOG, value)
            self._sent = count


@dataclass(frozen=True)
class Seen:
    """A run at one moment: status, log lines that are new, progress, metrics, and what it left at its end."""

    status: str
    lines: tuple[str, ...]
    progress: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    output: Reference | None = None
    reason: str = ""
    seconds: float = 0.0


class RunWatch:
    """Looks at a run whose work is done elsewhere."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._source = ""
        self._count = 0

    def look(self) -> Seen:
        """The run as it is now. Raises what UNREACHABLE lists."""
        run = reachable_client().get_run(self._run_id)
        tags = run.data.tags
        output = tags.get(OUTPUT)
        return Seen(
            status=run.info.status,
            lines=tuple(self._new_lines(tags.get(LOG))),
            progress=tags.get(PROGRESS, ""),
            metrics=dict(run.data.metrics),
            output=Reference.model_validate_json(output) if output else None,
            reason=reason_of(run),
            seconds=((run.info.end_time or run.info.start_time) - run.info.start_time) / 1000,
        )

    def _new_lines(self, text: str | None) -> list[str]:
        if text is None:
            return []
        told = json.loads(text)
        if told["source"] != self._source:
            self._source, self._count = told["source"], 0
        new = told["count"] - self._count
        self._count = told["count"]
        lines = list(told["lines"])
        if new > len(lines):
            return [f"… {new - len(lines)} lines are in the run's task.log only", *lines]
        return lines[len(lines) - new :]

    def forget_log(self) -> None:
        """Delete the tag with the log's last lines: the whole log is among the artifacts."""
        client: MlflowClient = reachable_client()
        if LOG in client.get_run(self._run_id).data.tags:
            client.delete_tag(self._run_id, LOG)
