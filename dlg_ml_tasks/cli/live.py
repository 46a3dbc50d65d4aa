"""Running a graph with a live view: submit, follow, cancel on Ctrl-C, tell MLflow how the session ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import requests
from mlflow.exceptions import MlflowException
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, errors
from dlg_ml_tasks.cli.tasks import use_tracking_server
from dlg_ml_tasks.graphs.follow import SessionResult, cancel, follow, observe
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.graphs.snapshot import TaskSnapshot
from dlg_ml_tasks.graphs.submit import new_session_id, submit
from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.sessions import SessionRuns, begin_session, end_session, forget_session

TRACKING_ERRORS = (MlflowException, TrackingUnreachable, requests.RequestException)
"""What MLflow raises while it does not answer."""

_STYLES = {
    "running": "cyan",
    "finished": "green",
    "reused": "blue",
    "failed": "bold red",
    "cancelled": "yellow",
    "skipped": "dim",
}

_MOST_ROWS = 40
"""Tasks that the view shows one by one; of more, those that are of interest, and how many there are of each state."""

_INTERESTING = ("failed", "running", "cancelled", "waiting", "skipped", "finished", "reused")


def the_island() -> Island:
    """The data island manager of the environment or of the running embedded stack."""
    host, port = stack.resolve(stack.home_directory()).require_island()
    return Island(f"{host}:{port}")


def start(graph: dict[str, Any], nodes: str | None = None) -> str:
    """Deploy a graph on the engine; returns the session's name. `nodes`: see `graphs.submit.choose_nodes`.

    Raises TrackingUnreachable, before anything is deployed, if the tasks could not record what they do.
    """
    use_tracking_server()
    session = new_session_id(graph)
    begin_session(session)
    try:
        return submit(graph, the_island(), session=session, nodes=nodes)
    except BaseException:
        forget_session(session)
        raise


def watch(session: str, *, asks: bool = False) -> SessionResult:
    """Follow a session in the terminal until it has ended.

    Ctrl-C cancels it; with `asks`, at a terminal, only after a question. KeyboardInterrupt leaves, and the session goes on, if the
    answer is no.
    """
    island = the_island()
    known = Known()
    shown: dict[str, str] = {}

    def show(tasks: tuple[TaskSnapshot, ...]) -> None:
        if console.is_terminal:
            live.update(table_of(session, tasks))
        else:
            _print_changes(tasks, shown)

    def watched() -> SessionResult:
        return follow(island, session, on_snapshot=show, enrich=known.ask)

    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while True:
            try:
                result = watched()
                if result.ok:
                    # MLflow is asked now and then only; how it ended, and what was reused, is to be seen at once.
                    result = replace(result, tasks=observe(island, session, enrich=Known().ask)[0])
                    show(result.tasks)
                break
            except KeyboardInterrupt:
                live.stop()
                if asks and console.is_terminal and not _wants_cancel(session):
                    raise
                errors.print("cancelling …")
                cancel(island, session)
                live.start()
    end(session, result)
    return result


def end(session: str, result: SessionResult) -> None:
    """Give the session's run in MLflow the status that it ended with."""
    try:
        end_session(session, "FINISHED" if result.ok else "KILLED" if result.cancelled else "FAILED")
    except TRACKING_ERRORS as error:
        errors.print(f"MLflow could not be told that the session ended: {error}", markup=False, soft_wrap=True)


def _wants_cancel(session: str) -> bool:
    """Ask what Ctrl-C was meant for; a second one leaves."""
    answer = console.input(f"cancel session {session}? [y]es, or leave it [r]unning and stop following: ")
    if answer.strip().lower() in ("y", "yes"):
        return True
    console.print(f"it goes on; follow it with: dlg-ml sessions show {session} --follow", highlight=False)
    return False


def table_of(session: str, tasks: tuple[TaskSnapshot, ...]) -> Table:
    """The state of a session's tasks."""
    table = Table(
        "task", "state", "time", "progress", "run", title=f"session {session}", title_justify="left", box=None
    )
    for task in _rows(tasks):
        seconds = f"{task.seconds:.0f} s" if task.seconds else ""
        progress = task.progress if task.state == "running" else main_metric(task.metrics)
        state = Text(task.state, style=_STYLES.get(task.state, "dim"))
        table.add_row(Text(task.node), state, seconds, Text(progress), task.run_id[:8])
    if len(tasks) > _MOST_ROWS:
        table.caption = f"{len(tasks)} tasks: {count_states(tasks)}"
        table.caption_justify = "left"
    return table


def count_states(tasks: tuple[TaskSnapshot, ...]) -> str:
    """How many tasks there are of each state, in words."""
    counts = {state: sum(task.state == state for task in tasks) for state in _INTERESTING}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _rows(tasks: tuple[TaskSnapshot, ...]) -> tuple[TaskSnapshot, ...]:
    if len(tasks) <= _MOST_ROWS:
        return tasks
    kept = sorted(tasks, key=lambda task: (_INTERESTING.index(task.state), not task.run_id))[:_MOST_ROWS]
    chosen = {task.oid for task in kept}
    return tuple(task for task in tasks if task.oid in chosen)


def main_metric(metrics: Mapping[str, float]) -> str:
    """The one metric that says most about a task, or nothing; that batches are missing goes before all."""
    if metrics.get("batches_failed"):
        return f"{metrics['batches_failed']:.0f} of {metrics.get('batches', 0):.0f} batches left out"
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


class Known:
    """What MLflow knows of a session's tasks; what it said last while it does not answer."""

    def __init__(self) -> None:
        self._runs: SessionRuns | None = None
        self._last: dict[str, dict[str, Any]] = {}
        self._next = 0.0

    def ask(self, session: str) -> Mapping[str, Mapping[str, Any]]:
        """By the task's name in the graph; asked at most once a second, and for at most a fifth of the time."""
        began = time.monotonic()
        if began >= self._next:
            try:
                self._runs = self._runs or SessionRuns(session)
                self._last = {node: asdict(info) for node, info in self._runs.update().items()}
            except TRACKING_ERRORS:
                # The view goes on without it; a task that cannot reach MLflow fails by itself and says so.
                return self._last
            finally:
                now = time.monotonic()
                self._next = now + max(1.0, 4 * (now - began))
        return self._last


def _print_changes(tasks: tuple[TaskSnapshot, ...], shown: dict[str, str]) -> None:
    """Without a terminal (CI, a log file): one line per change of state."""
    for task in tasks:
        if shown.get(task.node) != task.state and task.state != "waiting":
            shown[task.node] = task.state
            console.print(f"  {task.node:<14} {task.state}", highlight=False, markup=False)
