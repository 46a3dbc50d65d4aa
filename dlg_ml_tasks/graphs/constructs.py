"""Finds what is wrong with the constructs of a graph: scatters whose copies are no number, others that tasks cannot stand in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dlg_ml_tasks.components.parameters import read_parameters
from dlg_ml_tasks.graphs.document import COPIES, SCATTER, parameters_of, scatter_of, task_nodes
from dlg_ml_tasks.tasks import BadInput, Task

_WITHOUT_TASKS = {
    "Gather": "connect the data inside the scatter to the task outside, which then gets those of all copies",
    "GroupBy": "connect the data inside the scatter to the task outside, which then gets those of all copies",
    "Loop": "a task that is repeated on the same inputs is reused, not done again; write the steps one after the other",
    "MKN": "use a scatter",
    "Service": "a task ends; start services beside the graph",
    "SubGraph": "the engine starts node managers on fixed ports for it; put its nodes into this graph",
}
"""Constructs that the translator knows, but that tasks may not stand in, with what to do instead."""


def construct_faults(graph: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The faults of constructs, and of nodes that stand in one which is not there, each with the node."""
    nodes = {node["id"]: node for node in graph["nodeDataArray"]}
    tasks = {node["id"] for node, _ in task_nodes(graph)}
    for node in graph["nodeDataArray"]:
        if _is_construct(node):
            yield from ((node, reason) for reason in _faults_of_construct(node))
        parent = node.get("parentId")
        if not parent:
            continue
        if parent not in nodes:
            yield node, "it stands in a construct that does not exist; drag it out of there in EAGLE"
        elif node["id"] in tasks and (advice := _WITHOUT_TASKS.get(nodes[parent]["category"])):
            yield (
                node,
                f"a task cannot stand in a {nodes[parent]['category']} ({nodes[parent].get('name')!r}): {advice}",
            )
        elif node["id"] in tasks and scatter_of(graph, nodes[parent]):
            yield (
                node,
                f"a task cannot stand in a scatter within a scatter ({nodes[parent].get('name')!r}); use one with more copies",
            )


def batch_faults(graph: dict[str, Any], node: dict[str, Any], task: Task[Any]) -> Iterator[str]:
    """Where the batches of a task that loads files do not fit the copies of the scatter around it."""
    if "batches" not in task.params.model_fields:
        return
    try:
        values = {name: field.get("value") for name, field in parameters_of(node).items()}
        parameters = read_parameters(task, values).model_dump()
    except BadInput:
        return  # reported with the other parameters
    batch, batches, scatter = parameters["batch"], parameters["batches"], scatter_of(graph, node)
    if scatter is None:
        if batches > 1 and batch is None:
            yield f"it would load one of {batches} batches, but does not stand in a scatter; set batch, or batches=1"
        return
    if batch is not None:
        yield f"batch={batch} would load the same files in every copy of scatter {scatter.get('name')!r}; leave it empty"
    copies = _copies(scatter)
    if copies is not None and copies != batches:
        yield f"batches={batches}, but scatter {scatter.get('name')!r} makes {COPIES}={copies}; set both to the same number"


def _is_construct(node: dict[str, Any]) -> bool:
    return node.get("categoryType") == "Construct" or bool(node.get("isGroup"))


def _faults_of_construct(node: dict[str, Any]) -> Iterator[str]:
    category = node.get("category")
    if category != SCATTER:
        if category not in _WITHOUT_TASKS:
            yield f"unknown construct {category!r}; the translator knows: {', '.join(sorted([SCATTER, *_WITHOUT_TASKS]))}"
        return
    if COPIES not in parameters_of(node):
        yield f"it has no parameter {COPIES}; take a Scatter from EAGLE's palette"
    elif _copies(node) is None:
        yield f"{COPIES} must be a whole number of 1 or more, not {parameters_of(node)[COPIES].get('value')!r}"


def _copies(scatter: dict[str, Any]) -> int | None:
    """The number of copies; None if it is none. EAGLE writes whole numbers as numbers, people as text."""
    value = parameters_of(scatter).get(COPIES, {}).get("value")
    text = str(value).strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None
