"""Reads logical graph documents: files on disk, the nodes and links in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.tasks import BadInput, Task

INPUT_USAGES = ("InputPort", "InputOutput")
OUTPUT_USAGES = ("OutputPort", "InputOutput")


def read_graph(path: Path) -> dict[str, Any]:
    """Read a ``.graph`` file. Raises BadInput if there is none, or if it is no logical graph that the translator accepts."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"graph {str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"graph {str(path)!r} is not JSON: {error}") from error
    if not isinstance(graph, dict) or not isinstance(graph.get("nodeDataArray"), list):
        raise BadInput(
            f"graph {str(path)!r} has no nodeDataArray, so it is no logical graph of schema OJS; save it as OJS in EAGLE "
            "(files of schema V4 are not accepted by the translator)"
        )
    graph.setdefault("linkDataArray", [])
    return graph


def task_nodes(graph: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Task[Any]]]:
    """The nodes that are tasks, each with its task."""
    for node in graph["nodeDataArray"]:
        task = task_of(value_of(node, "dropclass"))
        if task is not None:
            yield node, task


def value_of(node: dict[str, Any], field: str) -> str:
    """A field's value as text; empty if there is no such field."""
    return next((str(each.get("value", "")) for each in node.get("fields", ()) if each.get("name") == field), "")


def parameters_of(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A node's fields that are no ports, by name."""
    return {each["name"]: each for each in node.get("fields", ()) if each.get("usage", "NoPort") == "NoPort"}


def ports_of(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A node's fields that are ports, by id."""
    return {each["id"]: each for each in node.get("fields", ()) if each.get("usage", "NoPort") != "NoPort"}
