"""The palette for the graph editor EAGLE, made from the tasks' declarations; also the node that a graph builder places.

Written so that EAGLE loads it without a warning and saves it without loss: schema OJS, fields typed, lists and objects as JSON
text, ids that stay the same from build to build.
"""

from __future__ import annotations

import json
import os
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from dlg_ml_tasks.components.parameters import AFTER, FORCE, to_graph_value
from dlg_ml_tasks.tasks import TASKS, Port, Task

PACKAGE = "dlg_ml_tasks.components"
DATA_PORT = "io"
DOCUMENTATION = "docs/graphs.md"
"""Where each component is explained under the name of its task."""

_LIMITS = {"ge": "At least {}", "gt": "More than {}", "le": "At most {}", "lt": "Less than {}", "pattern": "Matches {}"}
"""The bounds of a parameter by the names that pydantic gives them."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/ICRAR/daliuge/dlg_ml_tasks")


def drop_class(task: Task[Any]) -> str:
    """Import path of the task's component, as it stands in a graph."""
    return f"{PACKAGE}.{''.join(part.capitalize() for part in task.name.split('_'))}App"


def task_of(drop_class_path: str) -> Task[Any] | None:
    """The task whose component has this import path, if any."""
    package, _, name = drop_class_path.rpartition(".")
    if package not in (PACKAGE, f"{PACKAGE}.apps"):
        return None
    return next((task for task in TASKS.values() if drop_class(task) == f"{PACKAGE}.{name}"), None)


def stable_id(*names: str) -> str:
    """A uuid that depends on the names only, so that generated files do not change from build to build."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(names)))


def application_node(task: Task[Any], node_id: str, name: str) -> dict[str, Any]:
    """The graph node of a task: its parameters with their defaults, its ports, and what the engine needs."""
    fields = [
        _field(
            "dropclass",
            "String",
            drop_class(task),
            "Import path of the component.",
            "ComponentParameter",
            readonly=True,
        ),
        _field(
            "execution_time",
            "Float",
            5,
            "Estimated execution time (a weight for the partitioning).",
            "ConstraintParameter",
        ),
        _field("num_cpus", "Integer", 1, "Number of cores used.", "ConstraintParameter"),
        *(_parameter(each, info) for each, info in task.params.model_fields.items()),
        _field(
            FORCE,
            "Boolean",
            False,
            "Do the work even if a finished run has done the same.",
            "ComponentParameter",
            changeable=True,
        ),
        *_ports(task),
    ]
    return _node(
        node_id, name, "DALiuGEApp", "Application", f"{task.description} See {DOCUMENTATION}#{task.name}", fields
    )


def reference_node(node_id: str, name: str, description: str) -> dict[str, Any]:
    """The graph node of the data drop between two tasks, in memory: it holds a reference of some 400 bytes.

    A file drop is no alternative: the engine looks for files that are not there every 10 s, forgets the drops of those that were
    never written yet as lost, and then fails each task that reads one.
    """
    fields = [
        _field("dropclass", "String", "dlg.data.drops.memory.InMemoryDROP", "Drop class", "ComponentParameter"),
        _field("data_volume", "Float", 1, "Estimated size of the data contained in this node", "ConstraintParameter"),
        _field(DATA_PORT, "Object", "", "Input Output port", "ApplicationArgument", usage="InputOutput"),
    ]
    return _node(node_id, name, "Memory", "Data", description, fields)


def scatter_node(node_id: str, name: str, copies: int, description: str) -> dict[str, Any]:
    """The graph node of a scatter: what stands in it (by its `parentId`) exists `copies` times, side by side."""
    fields = [
        _field(
            "num_of_copies",
            "Integer",
            copies,
            "Number of copies of what stands in the scatter; load_raw's parameter batches must be the same number.",
            "ConstructParameter",
        )
    ]
    return {**_node(node_id, name, "Scatter", "Construct", description, fields), "isGroup": True}


def build_palette() -> dict[str, Any]:
    """The palette with one component per task."""
    return {
        "modelData": model_data(
            "dlg_ml_tasks.palette",
            "palette",
            "Machine-learning tasks for DALiuGE: load raw files, preprocess, train, retrain, promote, infer. "
            "Put a Memory drop between two tasks.",
            len(TASKS),
        ),
        "nodeDataArray": [
            application_node(task, stable_id("palette", task.name), drop_class(task).rpartition(".")[2])
            for task in TASKS.values()
        ],
        "linkDataArray": [],
    }


def model_data(file_name: str, file_type: Literal["graph", "palette"], description: str, nodes: int) -> dict[str, Any]:
    """The head of a graph or palette file; nothing in it depends on when and where it was made."""
    return {
        "filePath": file_name,
        "fileType": file_type,
        "readonly": False,
        "repo": "",
        "repoBranch": "",
        "repoService": "File",
        "generatorVersion": "",
        "generatorCommitHash": "",
        "generatorName": "dlg_ml_tasks",
        "schemaVersion": "OJS",
        "lastModifiedName": "",
        "lastModifiedEmail": "",
        "lastModifiedDatetime": 0,
        "numLGNodes": nodes,
        "commitHash": "",
        "downloadUrl": "",
        "repositoryUrl": "",
        "signature": "",
        "shortDescription": description.split(". ")[0],
        "detailedDescription": description,
    }


def graph_configuration(graph: str, fields: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """The configuration of a graph: the fields (by node id) that its users may want to change, with their values.

    EAGLE keeps with it where the graph lies, and calls it an error if that is not where the graph was opened from: for a file on
    disk it knows the name only, which therefore must stay.
    """
    location = {
        "repositoryService": "File",
        "repositoryBranch": "",
        "repositoryName": "",
        "repositoryPath": "",
        "repositoryFileName": f"{graph}.graph",
        "commitHash": "",
        "downloadUrl": "",
    }
    nodes = {
        node: {"fields": {field["id"]: {"value": field["value"], "comment": ""} for field in chosen}}
        for node, chosen in fields.items()
    }
    return {
        "id": stable_id(graph, "configuration"),
        "modelData": {
            "name": graph,
            "shortDescription": "What users of this graph may want to change.",
            "detailedDescription": "",
            "type": "GraphConfig",
            "schemaVersion": "V4",
            "readonly": False,
            "location": location,
            "graphLocation": location,
            "generatorVersion": "",
            "generatorCommitHash": "",
            "generatorName": "dlg_ml_tasks",
            "repositoryUrl": "",
            "signature": "",
            "lastModifiedName": "",
            "lastModifiedEmail": "",
            "lastModifiedDatetime": 0,
            "numLGNodes": 0,
        },
        "nodes": {node: each for node, each in nodes.items() if each["fields"]},
    }


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write a graph or palette file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _node(
    node_id: str, name: str, category: str, category_type: str, description: str, fields: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": node_id,
        "name": name,
        "category": category,
        "categoryType": category_type,
        "description": description,
        "isGroup": False,
        "x": 0,
        "y": 0,
        "collapsed": False,
        "expanded": False,
        "subject": None,
        "drawOrderHint": 0,
        "commitHash": "",
        "repositoryUrl": "",
        "paletteDownloadUrl": "",
        "dataHash": "",
        "fields": [{**field, "id": stable_id(node_id, field["parameterType"], field["name"])} for field in fields],
        "color": "",  # EAGLE chooses it by category
        "inputAppFields": [],
        "inputApplicationName": "",
        "inputApplicationType": "None",
        "outputAppFields": [],
        "outputApplicationName": "",
        "outputApplicationType": "None",
    }


def _field(
    name: str,
    kind: str,
    value: str | int | float | bool,
    description: str,
    parameter_type: str,
    *,
    usage: str = "NoPort",
    encoding: str = "utf-8",
    options: Iterable[str] = (),
    readonly: bool = False,
    changeable: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "defaultValue": value,
        "description": description,
        "type": kind,
        "readonly": readonly,
        "changeable": changeable,
        "precious": False,
        "options": list(options),
        "positional": False,
        "keyAttribute": False,
        "encoding": encoding,
        "parameterType": parameter_type,
        "usage": usage,
    }


def _parameter(name: str, info: FieldInfo) -> dict[str, Any]:
    default = "" if info.is_required() else to_graph_value(info.get_default(call_default_factory=True))
    kind, options = _editor_type(info.annotation)
    description = " ".join([info.description or "", *_limits(info)])
    return _field(name, kind, default, description, "ComponentParameter", options=options, changeable=True)


def _limits(info: FieldInfo) -> Iterator[str]:
    """What values are allowed, in words: the editor accepts any."""
    if info.is_required():
        yield "Required."
    for limit in info.metadata:
        for attribute, words in _LIMITS.items():
            if (bound := getattr(limit, attribute, None)) is not None:
                yield f"{words.format(bound)}."


def _ports(task: Task[Any]) -> Iterator[dict[str, Any]]:
    # EAGLE wants names to be unique in a node: an input and an output of one name are one port for both.
    for port in task.inputs:
        if port.name != task.output.name:
            yield _port(port.name, "InputPort", _describe_input(port))
        else:
            yield _port(port.name, "InputOutput", f"In: {_describe_input(port)} Out: {task.output.description}.")
    yield _port(AFTER, "InputPort", "Wait for what is connected here; its content is not used. Optional.")
    if task.output.name not in {port.name for port in task.inputs}:
        yield _port(task.output.name, "OutputPort", f"{task.output.description}.")


def _port(name: str, usage: str, description: str) -> dict[str, Any]:
    return _field(name, "Object", "", description, "ApplicationArgument", usage=usage)


def _describe_input(port: Port) -> str:
    return (
        f"{port.description}.{' Several may be connected.' if port.many else ''}{'' if port.required else ' Optional.'}"
    )


def _editor_type(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """EAGLE's field type for a parameter's annotation, and the options of a choice."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
    if typing.get_origin(annotation) is Literal:
        return "Select", tuple(map(str, typing.get_args(annotation)))
    if typing.get_origin(annotation) is dict:
        return "Json", ()
    return {bool: "Boolean", int: "Integer", float: "Float"}.get(annotation, "String"), ()
