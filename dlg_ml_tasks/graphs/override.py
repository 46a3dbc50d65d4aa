"""Changes parameters of a graph from the command line, without touching its file: ``--set node.parameter=value``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.components.parameters import read_parameters, to_graph_value
from dlg_ml_tasks.graphs.document import COPIES, parameters_of, scatter_of, settle, task_nodes, value_of
from dlg_ml_tasks.tasks import BadInput


def override(graph: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of the graph with parameters set.

    Each setting is ``NODE.PARAMETER=VALUE`` (NODE: a node's name, or a task's name for all its nodes) or ``PARAMETER=VALUE`` for
    all nodes that have the parameter. Later settings win. The graph's active configuration is taken in first.
    Values are checked by `check`, not here.
    Raises BadInput for a setting of another form, or for names that do not exist, listing those that do.
    """
    changed = settle(graph)
    touched: list[dict[str, Any]] = []
    for setting in settings:
        target, equals, value = setting.partition("=")
        node_name, _, parameter = target.strip().rpartition(".")
        if not equals or not parameter:
            raise BadInput(f"{setting!r} is no setting; write node.parameter=value or parameter=value")
        nodes = _find_nodes(changed, node_name)
        fields = [parameters_of(node)[parameter] for node in nodes if parameter in parameters_of(node)]
        if not fields:
            names = sorted({name for node in nodes for name in parameters_of(node)})
            where = f"node {node_name!r}" if node_name else "no node of the graph"
            raise BadInput(
                f"{where} has {'no' if node_name else 'a'} parameter {parameter!r}; there are: {', '.join(names)}"
            )
        for field in fields:
            field["value"] = value
        touched += fields
    _agree_on_batches(changed, touched)
    return changed


def with_absolute_sources(graph: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of the graph in which relative local paths among load_raw's sources are taken from `folder`.

    A node manager's working directory is that of whichever session was created last, so a relative path means nothing there.
    """
    changed = settle(graph)
    for node, task in task_nodes(changed):
        field = parameters_of(node).get("sources")
        if task.name != "load_raw" or field is None:
            continue
        try:
            sources = read_parameters(task, {"sources": field.get("value")}).model_dump()["sources"]
        except BadInput:
            # `check` says what is wrong with it, with the node's name.
            continue
        field["value"] = to_graph_value([each if _is_absolute(each) else str(folder / each) for each in sources])
    return changed


def _agree_on_batches(graph: dict[str, Any], touched: list[dict[str, Any]]) -> None:
    """A scatter's copies and the batches of load_raw in it are one number, so that setting either sets both."""
    for node, _ in task_nodes(graph):
        scatter, batches = scatter_of(graph, node), parameters_of(node).get("batches")
        if scatter is None or batches is None:
            continue
        copies = parameters_of(scatter)[COPIES]
        if any(each is batches for each in touched):
            copies["value"] = batches["value"]
        elif any(each is copies for each in touched):
            batches["value"] = copies["value"]


def _is_absolute(source: str) -> bool:
    return source.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source) is not None


def _find_nodes(graph: dict[str, Any], name: str) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = graph["nodeDataArray"]
    if not name:
        return [node for node in nodes if node.get("categoryType") != "Data"]
    found = [node for node in nodes if node.get("name") == name] or [node for node in nodes if _task_name(node) == name]
    if not found:
        names = sorted({str(node.get("name")) for node in nodes if node.get("categoryType") != "Data"})
        raise BadInput(f"the graph has no node {name!r}; there are: {', '.join(names)}")
    return found


def _task_name(node: dict[str, Any]) -> str | None:
    task = task_of(value_of(node, "dropclass"))
    return task.name if task else None
