"""How a session looks in a terminal: what a person must be able to read off it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dlg_ml_tasks.cli.view import changes, count_states, duration, picture
from dlg_ml_tasks.graphs.snapshot import TaskSnapshot

PAGE = "http://127.0.0.1:5000/#/experiments/1/runs/"


def task(node: str, state: Any, **more: Any) -> TaskSnapshot:
    return TaskSnapshot(node, node.partition("/")[0], state, oid=node, **more)


def copies(name: str, **states: int) -> list[TaskSnapshot]:
    found = [state for state, count in states.items() for _ in range(count)]
    return [task(f"{name}/{number}", state) for number, state in enumerate(found, 1)]


def shown(*tasks: TaskSnapshot, styled: bool = False, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=styled, color_system="standard" if styled else None)
    console.print(picture("night-1", tasks, **more))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row(text: str, start: str) -> str:
    (found,) = (each for each in text.splitlines() if each.strip().startswith(start))
    return " ".join(found.split())


def test_each_task_has_state_time_progress_and_a_link_to_its_run() -> None:
    running = task(
        "train", "running", seconds=77.4, progress="epoch 3/8", run_id="7391f146aa", run_url=f"{PAGE}7391f146aa"
    )
    text = shown(task("load", "reused", seconds=3, metrics={"files": 43.0}), running, task("infer", "waiting"))
    assert row(text, "load") == "load reused 3 s files 43"
    assert row(text, "train").startswith("train running 1 min 17 s epoch 3/8")
    assert f"{PAGE}7391f146aa" in row(shown(running, styled=True), "train")
    assert row(text, "infer") == "infer waiting"


def test_the_title_says_how_much_is_done_and_how_long_it_took() -> None:
    text = shown(task("a", "finished"), task("b", "reused"), task("c", "running"), seconds=3723)
    assert "session night-1  2 of 3 tasks done, 1 h 02 min" in text


def test_a_thousand_copies_are_one_row_that_counts_them_and_a_few_that_run() -> None:
    many = copies("preprocess", finished=700, reused=100, running=9, failed=1, waiting=190)
    text = shown(*copies("load", finished=1000), *many, task("train", "waiting"))
    assert row(text, "load × 1000") == "load × 1000 finished 1000 finished"
    assert row(text, "preprocess × 1000").endswith("running 1 failed, 9 running, 190 waiting, 700 finished, 100 reused")
    assert row(text, "preprocess/801") == "preprocess/801 running"
    assert row(text, "and 6 more") == "and 6 more running"
    assert len(text.splitlines()) < 12


def test_copies_of_different_nodes_are_counted_apart_however_they_are_mixed() -> None:
    mixed = [each for pair in zip(copies("load", finished=9), copies("work", failed=9), strict=True) for each in pair]
    text = shown(*mixed)
    assert row(text, "load ×") == "load × 9 finished 9 finished"
    assert row(text, "work ×") == "work × 9 failed 9 failed"


def test_a_few_copies_have_a_row_each() -> None:
    assert "load/3" in shown(*copies("load", finished=3))


def test_what_failed_is_named_with_its_reason_and_the_rest_counted() -> None:
    text = shown(*(task(f"load/{number}", "failed", error=f"no file {number}", run_id="ab12") for number in range(20)))
    assert "✗ load/0 (run ab12): no file 0" in text
    assert "✗ and 12 more" in text


def test_that_the_engine_is_silent_is_said_below() -> None:
    assert shown(task("a", "running"), note="no answer for 7 s").splitlines()[-1] == "no answer for 7 s"


def test_names_and_reasons_with_brackets_are_shown_as_they_are() -> None:
    assert "[red]x[/]: [bold]y" in shown(task("[red]x[/]", "failed", error="[bold]y"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (task("train", "running"), "train          running"),
        (task("train", "finished", seconds=61, metrics={"f1": 0.5}), "train          finished   1 min 01 s  f1 0.5"),
        (task("train", "failed", error="no data"), "train          failed     no data"),
    ],
)
def test_a_log_gets_one_line_for_each_change(given: TaskSnapshot, said: str) -> None:
    shown: dict[str, str] = {}
    assert list(changes((given,), shown)) == [said]
    assert list(changes((given,), shown)) == []


def test_of_many_copies_a_log_gets_the_whole_and_those_that_failed() -> None:
    shown: dict[str, str] = {}
    assert list(changes(tuple(copies("load", waiting=900)), shown)) == []
    (begun,) = changes(tuple(copies("load", running=2, waiting=898)), shown)
    assert begun == "load x 900     running    2 running, 898 waiting"
    assert list(changes(tuple(copies("load", finished=99, running=2, waiting=799)), shown)) == []
    ended = list(changes(tuple(copies("load", finished=899, failed=1)), shown))
    assert ended == ["load x 900     failed     1 failed, 899 finished", "load/900       failed"]


def test_states_are_counted_in_words() -> None:
    assert count_states(copies("a", finished=3, failed=1)) == "1 failed, 3 finished"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (754, "12 min 34 s"), (7500, "2 h 05 min")]
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said
