"""Running a graph with a live view: submit, follow, cancel on Ctrl-C, tell MLflow how the session ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import requests
from mlflow.exceptions import MlflowException
from rich.live import Live
from rich.table import Table

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, errors
from dlg_ml_tasks.cli.tasks import use_tracking_server
from dlg_ml_tasks.graphs.follow import SessionResult, TaskSnapshot, cancel, follow
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.graphs.submit import submit
from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.sessions import end_session, session_runs

_STYLES = {
    "running": "cyan",
    "finished": "green",
    "reused": "blue",
    "failed": "bold red",
    "cancelled": "yellow",
    "skipped": "dim",
}


def the_island() -> Island:
    """The data island manager of the environment or of the running embedded stack."""
    host, port = stack.resolve(stack.home_directory()).require_island()
    return Island(f"{host}:{port}")


def start(graph: dict[str, Any]) -> str:
    """Deploy a graph on the engine; returns the session's name."""
    use_tracking_server()
    return submit(graph, the_island())


def watch(session: str) -> SessionResult:
    """Follow a session in the terminal until it has ended; Ctrl-C cancels it."""
    island = the_island()
    known = _Known()
    cancelled = False
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:

        def show(tasks: tuple[TaskSnapshot, ...]) -> None:
            if console.is_terminal:
                live.update(table_of(session, tasks))
            else:
                _print_changes(tasks, known.shown)

        try:
            result = follow(island, session, on_snapshot=show, enrich=known.ask)
        except KeyboardInterrupt:
            cancelled = True
            errors.print("cancelling …")
            cancel(island, session)
            result = follow(island, session, on_snapshot=show, enrich=known.ask)
    try:
        end_session(session, "FINISHED" if result.ok else "KILLED" if cancelled else "FAILED")
    except (MlflowException, TrackingUnreachable, requests.RequestException) as error:
        errors.print(f"MLflow could not be told that the session ended: {error}")
    return result


def table_of(session: str, tasks: tuple[TaskSnapshot, ...]) -> Table:
    """The state of a session's tasks."""
    table = Table(
        "task", "state", "time", "progress", "run", title=f"session {session}", title_justify="left", box=None
    )
    for task in tasks:
        style = _STYLES.get(task.state, "dim")
        seconds = f"{task.seconds:.0f} s" if task.seconds else ""
        progress = task.progress if task.state == "running" else main_metric(task.metrics)
        table.add_row(task.node, f"[{style}]{task.state}[/]", seconds, progress, task.run_id[:8])
    return table


def main_metric(metrics: Mapping[str, float]) -> str:
    """The one metric that says most about a task, or nothing."""
    for name in ("challenger_new", "f1", "accuracy", "promoted", "train_loss", "files"):
        if name in metrics:
            return f"{name} {metrics[name]:.4g}"
    return ""


def print_failure(result: SessionResult) -> None:
    """What went wrong, where the log is, and which run has the traceback."""
    errors.print(f"session {result.session} did not finish: {result.reason}", style="red", markup=False, soft_wrap=True)
    for task in result.failed:
        errors.print(f"  {task.node}: MLflow run {task.run_id or '(none)'}", markup=False, soft_wrap=True)
    for node, path in result.logs.items():
        errors.print(f"  log on {node}: {path}", markup=False, soft_wrap=True)


class _Known:
    """What MLflow knows of a session's tasks, asked at most once a second; what it said last while it does not answer."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._next = 0.0

    def ask(self, session: str) -> Mapping[str, Mapping[str, Any]]:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            try:
                self._last = {info.node: asdict(info) for info in session_runs(session)}
            except (MlflowException, TrackingUnreachable, requests.RequestException):
                # The view goes on without it; a task that cannot reach MLflow fails by itself and says so.
                return self._last
        return self._last


def _print_changes(tasks: tuple[TaskSnapshot, ...], shown: dict[str, str]) -> None:
    """Without a terminal (CI, a log file): one line per change of state."""
    for task in tasks:
        if shown.get(task.node) != task.state and task.state != "waiting":
            shown[task.node] = task.state
            console.print(f"  {task.node:<14} {task.state}", highlight=False)
