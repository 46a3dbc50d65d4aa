"""Finds what is wrong with a graph before it is deployed: the engine reports such faults late, and without the reason."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dlg_ml_tasks.components.palette import PACKAGE
from dlg_ml_tasks.components.parameters import AFTER, FORCE, read_force, read_parameters
from dlg_ml_tasks.graphs.constructs import batch_faults, construct_faults
from dlg_ml_tasks.graphs.document import (
    ACTIVE,
    CONFIGURATIONS,
    INPUT_USAGES,
    OUTPUT_USAGES,
    configured,
    parameters_of,
    ports_of,
    scatter_of,
    settle,
    task_nodes,
    value_of,
)
from dlg_ml_tasks.tasks import BadInput, Port, Task

ENGINE_PARAMETERS = frozenset(
    {
        "base_name",
        "dropclass",
        "group_end",
        "group_start",
        "input_error_threshold",
        "log_level",
        "n_effective_inputs",
        "n_tries",
    }
    | {"block_skip", "persist", "streaming"}
)
"""Component parameters of the engine that any application may carry."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one node of a graph."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def check(graph: dict[str, Any]) -> list[Problem]:
    """All problems of a logical graph with its active configuration; an empty list means that it can be deployed."""
    problems = list(_configuration_faults(graph))
    graph = settle(graph)
    problems += [Problem(node.get("name", "?"), reason) for node, reason in _component_faults(graph)]
    problems += [Problem(node.get("name", "?"), reason) for node, reason in construct_faults(graph)]
    links = _Links(graph)
    for node, task in task_nodes(graph):
        reasons = [
            *_parameter_faults(node, task),
            *_port_faults(node, task),
            *links.faults(node, task),
            *batch_faults(graph, node, task),
        ]
        problems += [Problem(node.get("name", task.name), reason) for reason in reasons]
    return problems + list(_duplicate_names(graph))


def _configuration_faults(graph: dict[str, Any]) -> Iterator[Problem]:
    """The translator fails on a configuration that names a field that is not there, and says nothing of an unknown active one."""
    known = {(node["id"], field["id"]) for node in graph["nodeDataArray"] for field in node.get("fields", ())}
    names = {node["id"]: str(node.get("name")) for node in graph["nodeDataArray"]}
    active = graph.get(ACTIVE)
    if active and active not in (graph.get(CONFIGURATIONS) or {}):
        yield Problem("configuration", f"the active configuration {active!r} does not exist; choose one in EAGLE")
    for node_id, field_id, _ in configured(graph):
        if (node_id, field_id) not in known:
            where = f"field {field_id!r} of {names[node_id]!r}" if node_id in names else f"node {node_id!r}"
            yield Problem("configuration", f"it sets {where}, which does not exist; remove it in EAGLE")


def _component_faults(graph: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    known = {node["id"] for node, _ in task_nodes(graph)}
    for node in graph["nodeDataArray"]:
        if node.get("categoryType") not in ("Application", "Data") or node["id"] in known:
            continue
        path = value_of(node, "dropclass")
        if path and not (_is_importable(path) and path.rpartition(".")[0] != PACKAGE):
            yield node, f"unknown component {path!r}; is its package installed where the node manager runs?"


def _is_importable(path: str) -> bool:
    try:
        return importlib.util.find_spec(path.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _parameter_faults(node: dict[str, Any], task: Task[Any]) -> Iterator[str]:
    fields = parameters_of(node)
    known = {*task.params.model_fields, FORCE}
    for name, field in fields.items():
        if field.get("parameterType") == "ComponentParameter" and name not in known | ENGINE_PARAMETERS:
            yield f"unknown parameter {name!r}{_suggest(name, known)}"
    values = {name: field.get("value") for name, field in fields.items()}
    for read in (lambda: read_parameters(task, values), lambda: read_force(values)):
        try:
            read()
        except BadInput as error:
            yield str(error)


def _port_faults(node: dict[str, Any], task: Task[Any]) -> Iterator[str]:
    inputs = {*(port.name for port in task.inputs), AFTER}
    for field in ports_of(node).values():
        name, usage = field["name"], field["usage"]
        if usage in INPUT_USAGES and name not in inputs:
            yield f"{task.name} has no input port {name!r}{_suggest(name, inputs)}"
        if usage in OUTPUT_USAGES and name != task.output.name:
            yield f"{task.name} has no output port {name!r}; it has {task.output.name!r}"


def _duplicate_names(graph: dict[str, Any]) -> Iterator[Problem]:
    """Two tasks of one name could not be told apart in the results; copies in a scatter share theirs on purpose."""
    names = [node.get("name", "") for node, _ in task_nodes(graph)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem(name, f"{names.count(name)} tasks have this name; give each its own")


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(known))}"


class _Links:
    """The links of a graph, seen from the tasks that they end in."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self._graph = graph
        self._links = graph["linkDataArray"]
        self._nodes = {node["id"]: node for node in graph["nodeDataArray"]}
        self._tasks = {node["id"]: task for node, task in task_nodes(graph)}

    def faults(self, node: dict[str, Any], task: Task[Any]) -> Iterator[str]:
        ports = ports_of(node)
        sources: dict[str, list[str]] = {}
        for link in self._links:
            if link["to"] != node["id"]:
                continue
            if link["toPort"] not in ports:
                yield f"a link from {self._name(link['from'])!r} ends in a port that the node does not have; draw it again"
                continue
            sources.setdefault(ports[link["toPort"]]["name"], []).append(link["from"])
            yield from self._scatter_faults(node, link["from"])
        for port in task.inputs:
            yield from self._port_faults(port, sources.get(port.name, []))
            yield from self._gather_faults(node, port, sources.get(port.name, []))

    def _port_faults(self, port: Port, sources: list[str]) -> Iterator[str]:
        if port.required and not sources:
            yield f"nothing is connected to its required port {port.name!r} ({port.description})"
        if not port.many and len(sources) > 1:
            yield f"port {port.name!r} takes one input, but {len(sources)} are connected"
        for source in sources:
            for producer in self._producers(source):
                if producer.output.kind != port.kind:
                    yield f"port {port.name!r} takes {port.kind}, but {self._name(source)!r} holds {producer.output.kind}"

    def _scatter_faults(self, node: dict[str, Any], source: str) -> Iterator[str]:
        here, there = scatter_of(self._graph, node), scatter_of(self._graph, self._nodes.get(source, {}))
        if here and there and here is not there:
            yield (
                f"{self._name(source)!r} stands in another scatter, {there.get('name')!r}; gather its copies in a task that "
                "stands in no scatter"
            )

    def _gather_faults(self, node: dict[str, Any], port: Port, sources: list[str]) -> Iterator[str]:
        for source in sources:
            scatter = scatter_of(self._graph, self._nodes.get(source, {}))
            if scatter and scatter_of(self._graph, node) is not scatter and not port.many:
                yield (
                    f"port {port.name!r} takes one input, but there is one {self._name(source)!r} for each copy of scatter "
                    f"{scatter.get('name')!r}"
                )

    def _producers(self, data: str) -> list[Task[Any]]:
        """The tasks that write a data node. Others, and constructs in between, say nothing about the kind."""
        return [self._tasks[link["from"]] for link in self._links if link["to"] == data and link["from"] in self._tasks]

    def _name(self, node_id: str) -> str:
        return str(self._nodes.get(node_id, {}).get("name", node_id))
