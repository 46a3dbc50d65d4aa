"""Running a graph with a live view: submit, follow, cancel on Ctrl-C, tell MLflow how the session ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import cache
from typing import Any

import requests
from mlflow.exceptions import MlflowException
from rich.live import Live

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, errors
from dlg_ml_tasks.cli.tasks import use_tracking_server
from dlg_ml_tasks.cli.view import changes, duration, picture
from dlg_ml_tasks.graphs.errors import EngineUnreachable
from dlg_ml_tasks.graphs.follow import SessionResult, cancel, follow, observe
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.graphs.overview import graph_and_start
from dlg_ml_tasks.graphs.snapshot import TaskSnapshot
from dlg_ml_tasks.graphs.submit import new_session_id, submit
from dlg_ml_tasks.tracking.errors import TrackingUnreachable
from dlg_ml_tasks.tracking.sessions import SessionRuns, begin_session, end_session, forget_session

TRACKING_ERRORS = (MlflowException, TrackingUnreachable, requests.RequestException)
"""What MLflow raises while it does not answer."""


def the_island() -> Island:
    """The data island manager of the environment or of the running embedded stack."""
    host, port = stack.resolve(stack.home_directory()).require_island()
    return _island(f"{host}:{port}")


@cache
def _island(address: str) -> Island:
    """One for all, because it remembers the graphs that it deployed."""
    return Island(address)


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
    answer is no. Raises EngineUnreachable, saying how to find the session again, if the island manager went away and stayed away.
    """
    island = the_island()
    known = Known()
    began = graph_and_start(session)[1] or datetime.now(timezone.utc)
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        shown = _Shown(session, began, live)
        while True:
            try:
                result = follow(island, session, on_snapshot=shown.tasks, on_silence=shown.silence, enrich=known.ask)
                if result.ok:
                    # MLflow is asked now and then only; how it ended, and what was reused, is to be seen at once.
                    result = replace(result, tasks=observe(island, session, enrich=Known().ask)[0])
                shown.tasks(result.tasks)
                break
            except KeyboardInterrupt:
                live.stop()
                if asks and console.is_terminal and not _wants_cancel(session):
                    raise
                errors.print("cancelling …")
                cancel(island, session)
                live.start()
            except EngineUnreachable as error:
                raise EngineUnreachable(
                    f"{error}. The session may go on without it; follow it again with: dlg-ml sessions show {session} --follow"
                ) from error
    end(session, result)
    return result


class _Shown:
    """What is on the screen of one who follows a session; without a terminal (CI, a log file), a line for each change."""

    def __init__(self, session: str, began: datetime, live: Live) -> None:
        self._session = session
        self._began = began
        self._live = live
        self._tasks: tuple[TaskSnapshot, ...] = ()
        self._states: dict[str, str] = {}
        self._is_silent = False

    def tasks(self, tasks: tuple[TaskSnapshot, ...]) -> None:
        """The session as it is."""
        self._tasks = tasks
        self._is_silent = False
        self._draw()
        for line in changes(tasks, self._states):
            self._say(line)

    def silence(self, seconds: float, reason: str) -> None:
        """The engine has not answered for so long; the view stands still."""
        self._draw(f"no answer for {duration(seconds)}, trying again: {reason}")
        if not self._is_silent:
            self._is_silent = True
            self._say(f"  {reason}; trying again")

    def _draw(self, note: str = "") -> None:
        if console.is_terminal:
            since = (datetime.now(timezone.utc) - self._began).total_seconds()
            self._live.update(picture(self._session, self._tasks, seconds=since, note=note))

    def _say(self, text: str) -> None:
        if not console.is_terminal:
            console.print(text, highlight=False, markup=False, soft_wrap=True)


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


def print_failure(result: SessionResult) -> None:
    """What went wrong, where the log is, and which run has the traceback."""

    def say(text: str, style: str = "") -> None:
        errors.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f"session {result.session} did not finish: {result.reason}", style="red")
    for task in result.failed:
        say(f"  {task.node}: MLflow run {task.run_url or task.run_id or '(none)'}")
    for node, path in result.logs.items():
        say(f"  log on {node}: {path}")


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
