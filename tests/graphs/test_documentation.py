"""docs/graphs.md says what is so."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.components.palette import DOCUMENTATION
from dlg_ml_tasks.graphs.check import check
from dlg_ml_tasks.graphs.document import read_graph
from dlg_ml_tasks.graphs.shipped import SHIPPED
from dlg_ml_tasks.tasks import TASKS

TEXT = (Path(__file__).parents[2] / DOCUMENTATION).read_text()


def test_every_shipped_graph_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)\.graph`", TEXT, re.MULTILINE)) == {make.__name__ for make in SHIPPED}


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_component_is_explained_with_its_ports(task: Any) -> None:
    section = TEXT.split(f"### {task.name}\n")[1].split("###")[0]
    assert {f"`{port.name}`" for port in (*task.inputs, task.output)} <= set(re.findall(r"`\w+`", section))


def test_the_example_builds_a_graph_that_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = TEXT.split("## In Python\n")[1].split("\nParameters")[0]
    exec(compile(textwrap.dedent(example), DOCUMENTATION, "exec"), {})
    assert check(read_graph(tmp_path / "nightly.graph")) == []
