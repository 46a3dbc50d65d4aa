"""dlg-ml run and dlg-ml sessions: submit a logical graph, and see, cancel or remove what was submitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlg_ml_tasks.cli.output import console, errors, print_json
from dlg_ml_tasks.cli.stack import Json, Stack, use
from dlg_ml_tasks.graphs.document import read_graph
from dlg_ml_tasks.graphs.override import override, with_absolute_sources

if TYPE_CHECKING:
    from dlg_ml_tasks.graphs.follow import SessionResult
    from dlg_ml_tasks.graphs.snapshot import TaskSnapshot
    from dlg_ml_tasks.tracking.sessions import SessionInfo

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Sessions: the graphs that were submitted, by `dlg-ml run` or from the translator's page.\n\n"
    "SESSION may be any part of a session's name that no other has.",
)

Session = Annotated[str, typer.Argument(metavar="SESSION", help="A session's name, or a part that no other has.")]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run(
    graph: Annotated[Path, typer.Argument(help="Logical graph (.graph) to run.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Change a parameter; without NODE: in all tasks."),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            metavar="N|HOST:PORT,…",
            help="Place the graph on so many, or on these, of the island's nodes; by default on all.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow; print the session's name.")] = False,
    stack: Stack = None,
) -> None:
    """Run a logical graph on the engine and follow it; exit code 0 only if every last task completed.

    Finished tasks with the same inputs, parameters and code are reused. Ctrl-C asks, and cancels. The session does not need this
    command to go on: `dlg-ml sessions` shows it later.

    Examples: dlg-ml run graphs/lifecycle.graph · dlg-ml run graphs/lifecycle.graph --set recipe=digits --set model_name=digits
    --set infer.model=models:/digits@champion · dlg-ml run graphs/train.graph --set train.epochs=10
    """
    use(stack)
    changed = with_absolute_sources(override(read_graph(graph), settings or []), Path.cwd())
    from dlg_ml_tasks.cli.live import start, watch
    from dlg_ml_tasks.cli.view import picture

    session = start(changed, nodes)
    if detach:
        console.print(session, highlight=False, soft_wrap=True)
        return
    result = watch(session, asks=True)
    if not console.is_terminal:
        console.print(picture(session, result.tasks, seconds=result.seconds))
    _leave(result)


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, help="How many of the sessions that the engine has forgotten.")] = 20,
    json: Json = False,
) -> None:
    """List the sessions, newest first: state, start, tasks, graph.

    `lost`: MLflow knows the session as running, and no node manager of this island does (any more). `dlg-ml sessions cancel` ends
    its runs in MLflow.
    """
    rows = _rows(limit)
    if json:
        print_json(rows)
        return
    from rich.table import Column, Table

    name = Column("session", no_wrap=True, min_width=max((len(row["session"]) for row in rows), default=0))
    table = Table(name, "state", "start (UTC)", "done", "failed", "graph", box=None)
    for row in rows:
        done = f"{row['done']}/{row['tasks']}" if row["tasks"] else ""
        table.add_row(
            row["session"], row["state"], (row["start"] or "")[:19], done, str(row["failed"] or ""), row["graph"]
        )
    console.print(table)


@app.command()
def show(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the session has ended.")] = False,
    json: Json = False,
) -> None:
    """Show the tasks of a session, once or until it has ended; then the exit code is 0 only if every last task completed."""
    from dlg_ml_tasks.cli.live import Known, end, the_island, watch
    from dlg_ml_tasks.cli.view import picture
    from dlg_ml_tasks.graphs.follow import follow as follow_session
    from dlg_ml_tasks.graphs.follow import observe

    name = _find(session)
    if not _is_on_engine(name):
        tasks = _tasks_of_forgotten(name)
        if json:
            print_json(_as_json(name, tasks, None))
        else:
            console.print(picture(name, tasks))
            console.print("the engine has forgotten this session; this is what MLflow kept")
        return
    result = None
    if follow:
        result = follow_session(the_island(), name, enrich=Known().ask) if json else watch(name, asks=True)
        tasks = result.tasks
    else:
        tasks, result = observe(the_island(), name, enrich=Known().ask)
    if result is not None:
        end(name, result)
    if json:
        print_json(_as_json(name, tasks, result))
    elif not (follow and console.is_terminal):
        console.print(picture(name, tasks))
    if result is not None:
        _leave(result)


@app.command()
def logs(
    session: Session,
    task: Annotated[str | None, typer.Argument(help="A task's name in the graph; by default all.")] = None,
) -> None:
    """Print the logs of a session's tasks: a task's whole log once it has ended, before that what it has told the engine."""
    from dlg_ml_tasks.cli.session_logs import task_log
    from dlg_ml_tasks.tasks import BadInput

    name = _find(session)
    tasks = _tasks(name)
    chosen = [each for each in tasks if task in (None, each.node)] or [each for each in tasks if each.task == task]
    if not chosen:
        raise BadInput(f"session {name!r} has no task {task!r}; it has: {', '.join(each.node for each in tasks)}")
    for each in chosen:
        console.print(f"── {each.node} ({each.state}, run {each.run_id or 'none'})", highlight=False, markup=False)
        for line in task_log(name, each):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def cancel(session: Session) -> None:
    """Cancel a session: its tasks end within seconds and their runs are KILLED. One that has ended stays as it is."""
    from dlg_ml_tasks.cli.live import end, the_island
    from dlg_ml_tasks.graphs.follow import cancel as cancel_session
    from dlg_ml_tasks.graphs.follow import follow
    from dlg_ml_tasks.tracking.sessions import end_session

    name = _find(session)
    if not _is_on_engine(name):
        if _status_in_mlflow(name) == "RUNNING":
            end_session(name, "KILLED")
        console.print(f"the engine has forgotten {name}; its runs in MLflow have ended", highlight=False)
        return
    island = the_island()
    cancel_session(island, name)
    result = follow(island, name)
    end(name, result)
    ended = "finished before" if result.ok else "cancelled" if result.cancelled else f"ended: {result.reason}"
    console.print(f"{name}: {ended}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def remove(session: Session) -> None:
    """Make the engine forget a session that has ended, which frees its memory. Runs, models and files stay."""
    from dlg_ml_tasks.cli.live import end, the_island
    from dlg_ml_tasks.graphs.errors import EngineRefused
    from dlg_ml_tasks.graphs.follow import observe
    from dlg_ml_tasks.tasks import BadInput

    name = _find(session)
    if not _is_on_engine(name):
        console.print(f"the engine has forgotten {name} already", highlight=False)
        return
    island = the_island()
    _, result = observe(island, name)
    if result is None:
        raise BadInput(f"session {name!r} has not ended; cancel it first: dlg-ml sessions cancel {name}")
    end(name, result)
    try:
        island.destroy(name)
    except EngineRefused:
        # An island manager that was started again removes the session on the nodes and then misses it in its own list.
        if _is_on_engine(name):
            raise
    console.print(f"removed {name}", highlight=False)


def _leave(result: SessionResult) -> None:
    """Say what went wrong, if anything, and leave with the exit code that tells."""
    from dlg_ml_tasks.cli.live import print_failure
    from dlg_ml_tasks.cli.view import count_states

    if result.ok:
        if result.failed:
            errors.print(
                f"finished, but not all: {count_states(result.tasks)}", style="yellow", markup=False, highlight=False
            )
            for task in result.failed:
                errors.print(f"  {task.node}: {task.error}", markup=False, soft_wrap=True, highlight=False)
        return
    print_failure(result)
    raise typer.Exit(INTERRUPTED if result.cancelled else 1)


def _is_on_engine(session: str) -> bool:
    from dlg_ml_tasks.cli.live import the_island

    return bool(the_island().session_states(session).states)


def _find(session: str) -> str:
    """The full name of a session that the engine or MLflow knows."""
    from dlg_ml_tasks.cli.live import the_island
    from dlg_ml_tasks.graphs.overview import find_session

    def known() -> Iterator[str]:
        yield from the_island().sessions()
        yield from (each.session for each in _in_mlflow(1000))

    return find_session(session, known())


def _in_mlflow(limit: int) -> list[SessionInfo]:
    """The sessions that MLflow knows; none while it does not answer, since the engine's own are still worth showing."""
    from dlg_ml_tasks.cli.live import TRACKING_ERRORS
    from dlg_ml_tasks.cli.tasks import use_tracking_server
    from dlg_ml_tasks.tracking.sessions import recent_sessions

    use_tracking_server()
    try:
        return recent_sessions(limit)
    except TRACKING_ERRORS as error:
        errors.print(f"without MLflow: {error}", markup=False, soft_wrap=True)
        return []


def _status_in_mlflow(session: str) -> str | None:
    return next((each.status for each in _in_mlflow(1000) if each.session == session), None)


def _rows(limit: int) -> list[dict[str, Any]]:
    """The sessions of the engine, and the newest of those that only MLflow remembers; newest first."""
    from datetime import datetime, timezone

    from dlg_ml_tasks.cli.live import the_island
    from dlg_ml_tasks.graphs.overview import graph_and_start
    from dlg_ml_tasks.graphs.overview import list_sessions as on_engine
    from dlg_ml_tasks.tracking.sessions import session_runs

    recorded = {each.session: each for each in _in_mlflow(1000)}
    rows = []

    def add(session: str, state: str, tasks: int, done: int, failed: int) -> None:
        graph, named = graph_and_start(session)
        info = recorded.get(session)
        start = datetime.fromtimestamp(info.started, timezone.utc) if info else named
        rows.append(
            {
                "session": session,
                "state": state,
                "start": start.isoformat() if start else None,
                "tasks": tasks,
                "done": done,
                "failed": failed,
                "graph": graph,
            }
        )

    live = {each.session: each for each in on_engine(the_island())}
    for each in live.values():
        add(each.session, each.state, each.tasks, each.done, each.failed)
    for info in [info for info in recorded.values() if info.session not in live][:limit]:
        runs = session_runs(info.session)
        done, failed = (sum(each.status == status for each in runs) for status in ("FINISHED", "FAILED"))
        add(info.session, _STATES_IN_MLFLOW.get(info.status, info.status.lower()), len(runs), done, failed)
    return sorted(rows, key=lambda row: str(row["start"]), reverse=True)


_STATES_IN_MLFLOW = {"RUNNING": "lost", "KILLED": "cancelled"}


def _tasks(session: str) -> tuple[TaskSnapshot, ...]:
    from dlg_ml_tasks.cli.live import Known, the_island
    from dlg_ml_tasks.graphs.follow import observe

    if not _is_on_engine(session):
        return _tasks_of_forgotten(session)
    return observe(the_island(), session, enrich=Known().ask)[0]


def _tasks_of_forgotten(session: str) -> tuple[TaskSnapshot, ...]:
    """The tasks that MLflow has runs of; the others left no trace."""
    from dlg_ml_tasks.graphs.snapshot import TaskSnapshot
    from dlg_ml_tasks.tracking.sessions import session_runs

    return tuple(
        TaskSnapshot(
            info.node,
            info.task,
            "reused"
            if info.reused
            else {"FINISHED": "finished", "FAILED": "failed", "RUNNING": "running"}.get(info.status, "cancelled"),  # type: ignore[arg-type]
            oid="",
            seconds=info.seconds,
            run_id=info.run_id,
            run_url=info.run_url,
            progress=info.progress,
            metrics=info.metrics,
        )
        for info in session_runs(session)
    )


def _as_json(session: str, tasks: tuple[TaskSnapshot, ...], result: SessionResult | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "session": session,
        "ended": result is not None,
        "ok": result.ok if result else None,
        "reason": result.reason if result else "",
        "tasks": [{**asdict(task), "seconds": round(task.seconds, 3)} for task in tasks],
        "logs": dict(result.logs) if result else {},
    }
