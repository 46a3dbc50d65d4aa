"""How a session looks in a terminal: one row for each task, one for all copies of a scatter, and a line for each failure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlg_ml_tasks.graphs.snapshot import TaskSnapshot, TaskState

Tasks = tuple[TaskSnapshot, ...]

_STYLES: Mapping[TaskState, str] = {
    "failed": "bold red",
    "running": "cyan",
    "cancelled": "yellow",
    "waiting": "dim",
    "skipped": "dim",
    "finished": "green",
    "reused": "blue",
}
"""Also the order in which states are counted out: what a person wants to know first, first."""

_DONE = ("finished", "reused")

_MOST_COPIES = 6
"""Copies of a scatter that have a row each; of more, a row tells how many are in which state."""

_MOST_SHOWN = 3
"""Running copies that are shown below the row of all."""

_MOST_FAILURES = 8


def picture(session: str, tasks: Tasks, *, seconds: float | None = None, note: str = "") -> RenderableType:
    """A session at one moment, `seconds` after its start; `note` says what is wrong with the looking itself."""
    parts: list[RenderableType] = [_title(session, tasks, seconds), _table(tasks)]
    parts += _failures(tasks)
    if note:
        parts.append(Text(note, style="yellow"))
    return Group(*parts)


def changes(tasks: Tasks, shown: dict[str, str]) -> Iterator[str]:
    """For logs: a line for each task whose state is not the one in `shown`, which is brought up to date.

    Of many copies of a scatter only those that failed have lines of their own.
    """
    for node, copies in _grouped(tasks):
        many = len(copies) > _MOST_COPIES
        if many and _is_news(node, _state_of(copies), shown):
            yield f"{f'{node} x {len(copies)}':<14} {_state_of(copies):<9}  {count_states(copies)}"
        for task in copies:
            if (not many or task.state == "failed") and _is_news(task.node, task.state, shown):
                yield _line(task)


def count_states(tasks: Iterable[TaskSnapshot]) -> str:
    """How many tasks there are of each state, in words."""
    return _counts(tasks).plain


def duration(seconds: float) -> str:
    """Seconds as people say them: 7 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def main_metric(metrics: Mapping[str, float]) -> str:
    """The one metric that says most about a task, or nothing; that batches are missing goes before all."""
    if metrics.get("batches_failed"):
        return f"{metrics['batches_failed']:.0f} of {metrics.get('batches', 0):.0f} batches left out"
    for name in ("challenger_new", "f1", "accuracy", "promoted", "train_loss", "files"):
        if name in metrics:
            return f"{name} {metrics[name]:.4g}"
    return ""


def _title(session: str, tasks: Tasks, seconds: float | None) -> Text:
    done = sum(task.state in _DONE for task in tasks)
    title = Text(f"session {session}", style="bold")
    title.append(f"  {done} of {len(tasks)} tasks done", style="not bold")
    if seconds is not None:
        title.append(f", {duration(seconds)}", style="not bold")
    return title


def _table(tasks: Tasks) -> Table:
    table = Table("task", "state", "time", "progress", "run", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for _, copies in _grouped(tasks):
        rows = map(_row, copies) if len(copies) <= _MOST_COPIES else _rows_of_copies(copies)
        for row in rows:
            table.add_row(*row)
    return table


def _grouped(tasks: Tasks) -> Iterator[tuple[str, Tasks]]:
    """Each node with its copies, in the order of their first tasks."""
    copies: dict[str, list[TaskSnapshot]] = {}
    for task in tasks:
        copies.setdefault(re.sub(r"(/\d+)+$", "", task.node), []).append(task)
    for node, found in copies.items():
        yield node, tuple(found)


def _is_news(name: str, state: str, shown: dict[str, str]) -> bool:
    before = shown.get(name, "waiting")
    shown[name] = state
    return state != before


def _line(task: TaskSnapshot) -> str:
    parts = (f"{task.node:<14} {task.state:<9}", _time(task), task.error or _detail(task))
    return "  ".join(filter(None, parts)).rstrip()


def _rows_of_copies(copies: Tasks) -> Iterator[tuple[Text, ...]]:
    """A row for all, and one for each of the few that run; those that failed are named below the table."""
    longest = max(copies, key=lambda task: task.seconds)
    node, _ = next(_grouped(copies))
    name = Text(f"{node} × {len(copies)}")  # not the letter x
    yield name, _styled(_state_of(copies)), _time_text(longest), _counts(copies), Text()
    running = [task for task in copies if task.state == "running"]
    for task in running[:_MOST_SHOWN]:
        name, *others = _row(task)
        yield Text("  ") + name, *others
    if len(running) > _MOST_SHOWN:
        yield Text(f"  and {len(running) - _MOST_SHOWN} more", style="dim"), _styled("running"), Text(), Text(), Text()


def _row(task: TaskSnapshot) -> tuple[Text, ...]:
    return Text(task.node), _styled(task.state), _time_text(task), Text(_detail(task)), _run(task)


def _run(task: TaskSnapshot) -> Text:
    """The first characters of the run's id; a terminal that knows links opens its page."""
    return Text(task.run_id[:8], style=f"link {task.run_url}" if task.run_url else "")


def _failures(tasks: Tasks) -> Iterator[Text]:
    failed = [task for task in tasks if task.error]
    for task in failed[:_MOST_FAILURES]:
        run = Text.assemble(" (run ", _run(task), ")") if task.run_id else Text()
        yield Text.assemble((f"✗ {task.node}", "red"), run, f": {task.error}")
    if len(failed) > _MOST_FAILURES:
        yield Text(f"✗ and {len(failed) - _MOST_FAILURES} more", style="red")


def _detail(task: TaskSnapshot) -> str:
    return task.progress if task.state == "running" else main_metric(task.metrics)


def _state_of(copies: Tasks) -> TaskState:
    """What the copies of a node are taken together: at work until each has ended, and then the worst of them."""
    states = {task.state for task in copies}
    if "running" in states or ("waiting" in states and len(states) > 1):
        return "running"
    return next(state for state in _STYLES if state in states)


def _counts(tasks: Iterable[TaskSnapshot]) -> Text:
    counts = Counter(task.state for task in tasks)
    parts = [Text(f"{counts[state]} {state}", style=style) for state, style in _STYLES.items() if counts[state]]
    return Text(", ").join(parts)


def _styled(state: TaskState) -> Text:
    return Text(state, style=_STYLES[state])


def _time(task: TaskSnapshot) -> str:
    return duration(task.seconds) if task.seconds else ""


def _time_text(task: TaskSnapshot) -> Text:
    return Text(_time(task), justify="right")
