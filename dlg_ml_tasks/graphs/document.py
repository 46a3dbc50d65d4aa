"""Reads logical graph documents: files on disk, the nodes and links in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.tasks import BadInput, Task

SCATTER = "Scatter"
COPIES = "num_of_copies"
CONFIGURATIONS = "graphConfigurations"
ACTIVE = "activeGraphConfigId"
INPUT_USAGES = ("InputPort", "InputOutput")
OUTPUT_USAGES = ("OutputPort", "InputOutput")


def read_graph(path: Path) -> dict[str, Any]:
    """Read a ``.graph`` file as it is. Raises BadInput if there is none, or if the translator would not take it."""
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


def settle(graph: dict[str, Any]) -> dict[str, Any]:
    """A copy of the graph with the values of its active configuration in the nodes, and without configurations.

    The translator would apply the configuration as the last step, over whatever was changed in the nodes before. What a
    configuration names that is not there is left out (`check` reports it).
    """
    settled = copy.deepcopy(graph)
    fields = {(node["id"], field["id"]): field for node in settled["nodeDataArray"] for field in node.get("fields", ())}
    for node_id, field_id, value in configured(settled):
        if (node_id, field_id) in fields:
            fields[node_id, field_id]["value"] = value
    settled.pop(CONFIGURATIONS, None)
    settled.pop(ACTIVE, None)
    return settled


def configured(graph: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Node id, field id and value of each parameter in the graph's active configuration."""
    active = (graph.get(CONFIGURATIONS) or {}).get(graph.get(ACTIVE)) or {}
    for node_id, node in active.get("nodes", {}).items():
        for field_id, field in node.get("fields", {}).items():
            yield node_id, field_id, field.get("value")


def scatter_of(graph: dict[str, Any], node: dict[str, Any]) -> dict[str, Any] | None:
    """The scatter that a node stands in, if any."""
    parent = node.get("parentId")
    found = (each for each in graph["nodeDataArray"] if each["id"] == parent and each.get("category") == SCATTER)
    return next(found, None) if parent else None


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
