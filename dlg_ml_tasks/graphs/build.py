"""Builds logical graphs in a dozen lines of Python; what it writes opens in the graph editor EAGLE.

graph = GraphBuilder("nightly", "Load one night in eight batches and train on all of them.")
with graph.scatter("batches", copies=8):
    raw = graph.task("load_raw", sources="/data/night/*.uvh5", recipe="rfi")
    data = graph.task("preprocess", recipe="rfi")
train = graph.task("train", recipe="rfi", model_name="rfi")
graph.link(raw, data, port="raw")
graph.link(data, train, port="data")
graph.write(Path("nightly.graph"))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError
from pathlib import Path
from typing import Any

from dlg_ml_tasks.components.palette import (
    DATA_PORT,
    application_node,
    graph_configuration,
    model_data,
    reference_node,
    scatter_node,
    stable_id,
    write_json,
)
from dlg_ml_tasks.components.parameters import AFTER, FORCE, read_force, read_parameters, to_graph_value
from dlg_ml_tasks.graphs.document import ACTIVE, CONFIGURATIONS, COPIES, parameters_of
from dlg_ml_tasks.graphs.layout import Place, arrange
from dlg_ml_tasks.tasks import TASKS, BadInput, Task


@dataclass(frozen=True)
class Scatter:
    """A part of the graph that exists `copies` times, side by side."""

    name: str
    copies: int
    document: dict[str, Any] = field(repr=False)


@dataclass(eq=False)
class Node:
    """A task placed in a graph, in a scatter or not. `sources` are the nodes it waits for, with the port each is connected to."""

    name: str
    task: Task[Any]
    document: dict[str, Any]
    chosen: tuple[str, ...]
    scatter: Scatter | None = None
    sources: list[tuple[Node, str]] = field(default_factory=list)


class GraphBuilder:
    """A logical graph of tasks. A data drop with the reference stands between two tasks, and after each last one.

    Parameters that are given to `task`, and the copies of scatters, stand in the graph's configuration: EAGLE's table of what a
    user of the graph may want to change.
    """

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self._nodes: list[Node] = []
        self._scatters: list[Scatter] = []
        self._open: Scatter | None = None

    def task(self, task: str, *, name: str | None = None, **parameters: Any) -> Node:
        """Place a task; `name` (default: the task's name) must be unique in the graph. Raises BadInput for wrong parameters."""
        if task not in TASKS:
            raise BadInput(f"unknown task {task!r}; there are: {', '.join(TASKS)}")
        name = self._new_name(name or task)
        if self._open is not None and "batches" in TASKS[task].params.model_fields:
            parameters.setdefault("batches", self._open.copies)
        node = Node(
            name,
            TASKS[task],
            application_node(TASKS[task], stable_id(self.name, name), name),
            tuple(parameters),
            self._open,
        )
        _set_parameters(node, parameters)
        if self._open is not None:
            node.document["parentId"] = self._open.document["id"]
        self._nodes.append(node)
        return node

    @contextmanager
    def scatter(self, name: str, *, copies: int) -> Iterator[Scatter]:
        """What is placed within the `with` block exists `copies` times. load_raw then loads one batch of the files in each copy; a
        task outside to which one inside is linked gets what all copies made. Raises BadInput within another scatter, or below one
        copy.
        """
        if self._open is not None:
            raise BadInput(
                f"scatter {name!r} stands in scatter {self._open.name!r}; batches are numbered by one scatter only"
            )
        if copies < 1:
            raise BadInput(f"scatter {name!r}: copies must be 1 or more, not {copies}")
        description = f"What stands in here exists {COPIES} times, side by side."
        self._open = Scatter(
            name, copies, scatter_node(stable_id(self.name, self._new_name(name)), name, copies, description)
        )
        self._scatters.append(self._open)
        try:
            yield self._open
        finally:
            self._open = None

    def link(self, source: Node, target: Node, *, port: str) -> None:
        """Give the source's output to an input port of the target; port 'after' only makes the target wait.

        Raises BadInput if there is no such port, if what the source makes is of another kind, or if the port is taken.
        """
        if port != AFTER:
            _check_port(source, target, port)
        if source.scatter and target.scatter and source.scatter is not target.scatter:
            raise BadInput(
                f"{source.name!r} stands in scatter {source.scatter.name!r} and {target.name!r} in {target.scatter.name!r}; "
                "gather in a task outside"
            )
        target.sources.append((source, port))

    def build(self) -> dict[str, Any]:
        """The graph as a JSON document of schema OJS. Raises BadInput if a required port has no link."""
        for node in self._nodes:
            _check_required(node)
        outputs = {node.name: self._output(node) for node in self._nodes}
        self._arrange(outputs)
        links = [_link(node.document, node.task.output.name, outputs[node.name], DATA_PORT) for node in self._nodes]
        links += [
            _link(outputs[source.name], DATA_PORT, node.document, port)
            for node in self._nodes
            for source, port in node.sources
        ]
        documents = [scatter.document for scatter in self._scatters]
        documents += [document for node in self._nodes for document in (node.document, outputs[node.name])]
        configuration = self._configuration(documents)
        return {
            "modelData": model_data(f"{self.name}.graph", "graph", self.description, len(documents)),
            ACTIVE: configuration["id"],
            CONFIGURATIONS: {configuration["id"]: configuration},
            "nodeDataArray": documents,
            "linkDataArray": links,
        }

    def write(self, path: Path) -> None:
        """Write the graph file, whole or not at all."""
        write_json(self.build(), path)

    def _new_name(self, name: str) -> str:
        if name in {*(node.name for node in self._nodes), *(scatter.name for scatter in self._scatters)}:
            raise BadInput(f"graph {self.name!r} has a node {name!r} already; give this one another name")
        return name

    def _output(self, node: Node) -> dict[str, Any]:
        port = node.task.output.name
        alone = sum(other.task.output.name == port for other in self._nodes) == 1
        document = reference_node(
            stable_id(self.name, node.name, "output"),
            port if alone else f"{node.name} {port}",
            f"Reference to what {node.name} made.",
        )
        return {**document, "parentId": node.scatter.document["id"]} if node.scatter else document

    def _arrange(self, outputs: Mapping[str, dict[str, Any]]) -> None:
        places = {
            node.name: Place(
                tuple(source.name for source, _ in node.sources), node.scatter.name if node.scatter else None
            )
            for node in self._nodes
        }
        try:
            layout = arrange(places)
        except CycleError as error:
            raise BadInput(f"graph {self.name!r}: these wait for each other: {' -> '.join(error.args[1])}") from error
        for node in self._nodes:
            node.document["x"], node.document["y"] = layout.tasks[node.name]
            outputs[node.name]["x"], outputs[node.name]["y"] = layout.outputs[node.name]
        for scatter in self._scatters:
            scatter.document["x"], scatter.document["y"] = layout.scatters[scatter.name]

    def _configuration(self, documents: list[dict[str, Any]]) -> dict[str, Any]:
        chosen = {node.document["id"]: node.chosen for node in self._nodes}
        chosen |= {scatter.document["id"]: (COPIES,) for scatter in self._scatters}
        fields = {
            document["id"]: [each for name, each in parameters_of(document).items() if name in chosen[document["id"]]]
            for document in documents
            if document["id"] in chosen
        }
        return graph_configuration(self.name, fields)


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
    if not port.many and source.scatter is not None and target.scatter is None:
        raise BadInput(
            f"node {target.name!r}: port {name!r} takes one input, but {source.name!r} makes {source.scatter.copies}, one in each "
            f"copy of scatter {source.scatter.name!r}"
        )


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
