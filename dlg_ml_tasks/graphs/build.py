"""Builds logical graphs in a dozen lines of Python; what it writes opens in the graph editor EAGLE.

graph = GraphBuilder("nightly", "Load one night and flag it.")
raw = graph.task("load_raw", sources="sample:night-A", recipe="rfi")
data = graph.task("preprocess", recipe="rfi")
graph.link(raw, data, port="raw")
graph.write(Path("nightly.graph"))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlg_ml_tasks.components.palette import (
    DATA_PORT,
    application_node,
    model_data,
    reference_node,
    stable_id,
    write_json,
)
from dlg_ml_tasks.components.parameters import AFTER, FORCE, read_force, read_parameters, to_graph_value
from dlg_ml_tasks.tasks import TASKS, BadInput, Task

_COLUMN = 250
_ROW = 150


@dataclass(eq=False)
class Node:
    """A task placed in a graph. `sources` are the nodes it waits for, with the port each is connected to."""

    name: str
    task: Task[Any]
    document: dict[str, Any]
    sources: list[tuple[Node, str]] = field(default_factory=list)

    @property
    def column(self) -> int:
        """How many tasks lie on the longest way to this one."""
        return 1 + max((source.column for source, _ in self.sources), default=-1)


class GraphBuilder:
    """A logical graph of tasks. A data drop with the reference stands between two tasks, and after each last one."""

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self._nodes: list[Node] = []

    def task(self, task: str, *, name: str | None = None, **parameters: Any) -> Node:
        """Place a task; `name` (default: the task's name) must be unique in the graph. Raises BadInput for wrong parameters."""
        if task not in TASKS:
            raise BadInput(f"unknown task {task!r}; there are: {', '.join(TASKS)}")
        name = name or task
        if name in {node.name for node in self._nodes}:
            raise BadInput(f"graph {self.name!r} has a node {name!r} already; give this one another name")
        node = Node(name, TASKS[task], application_node(TASKS[task], stable_id(self.name, name), name))
        _set_parameters(node, parameters)
        self._nodes.append(node)
        return node

    def link(self, source: Node, target: Node, *, port: str) -> None:
        """Give the source's output to an input port of the target; port 'after' only makes the target wait.

        Raises BadInput if there is no such port, if what the source makes is of another kind, or if the port is taken.
        """
        if port != AFTER:
            _check_port(source, target, port)
        target.sources.append((source, port))

    def build(self) -> dict[str, Any]:
        """The graph as a JSON document of schema OJS. Raises BadInput if a required port has no link."""
        for node in self._nodes:
            _check_required(node)
        outputs = {node.name: self._output(node) for node in self._nodes}
        rows: dict[int, int] = {}
        for node in self._nodes:
            row = rows[node.column] = rows.get(node.column, -1) + 1
            node.document.update(x=_COLUMN * 2 * node.column, y=_ROW * row)
            outputs[node.name].update(x=_COLUMN * (2 * node.column + 1), y=_ROW * row)
        links = [_link(node.document, node.task.output.name, outputs[node.name], DATA_PORT) for node in self._nodes]
        links += [
            _link(outputs[source.name], DATA_PORT, node.document, port)
            for node in self._nodes
            for source, port in node.sources
        ]
        documents = [document for node in self._nodes for document in (node.document, outputs[node.name])]
        return {
            "modelData": model_data(f"{self.name}.graph", "graph", self.description, len(documents)),
            "nodeDataArray": documents,
            "linkDataArray": links,
        }

    def write(self, path: Path) -> None:
        """Write the graph file, whole or not at all."""
        write_json(self.build(), path)

    def _output(self, node: Node) -> dict[str, Any]:
        name = f"{node.name} {node.task.output.name}"
        return reference_node(stable_id(self.name, node.name, "output"), name, f"Reference to what {node.name} made.")


def _set_parameters(node: Node, parameters: Mapping[str, Any]) -> None:
    known = {*node.task.params.model_fields, FORCE}
    if unknown := sorted(set(parameters) - known):
        raise BadInput(
            f"node {node.name!r}: {node.task.name} has no parameter {unknown[0]!r}; it has: {', '.join(sorted(known))}"
        )
    read_parameters(node.task, parameters)
    read_force(parameters)
    for each in node.document["fields"]:
        if each["parameterType"] == "ComponentParameter" and each["name"] in parameters:
            each["value"] = to_graph_value(parameters[each["name"]])


def _check_port(source: Node, target: Node, name: str) -> None:
    port = next((each for each in target.task.inputs if each.name == name), None)
    if port is None:
        names = ", ".join([*(each.name for each in target.task.inputs), AFTER])
        raise BadInput(f"node {target.name!r}: {target.task.name} has no input port {name!r}; it has: {names}")
    if port.kind != source.task.output.kind:
        raise BadInput(
            f"node {target.name!r}: port {name!r} takes {port.kind}, but {source.name!r} makes {source.task.output.kind}"
        )
    if not port.many and any(taken == name for _, taken in target.sources):
        raise BadInput(f"node {target.name!r}: port {name!r} takes one input and has one already")


def _check_required(node: Node) -> None:
    linked = {port for _, port in node.sources}
    for port in node.task.inputs:
        if port.required and port.name not in linked:
            raise BadInput(f"node {node.name!r}: nothing is linked to its required port {port.name!r}")


def _link(source: dict[str, Any], source_port: str, target: dict[str, Any], target_port: str) -> dict[str, Any]:
    return {
        "from": source["id"],
        "fromPort": _port_id(source, source_port),
        "to": target["id"],
        "toPort": _port_id(target, target_port),
        "loop_aware": "0",
        "closesLoop": False,
    }


def _port_id(document: dict[str, Any], name: str) -> str:
    return next(str(each["id"]) for each in document["fields"] if each["name"] == name and each["usage"] != "NoPort")
