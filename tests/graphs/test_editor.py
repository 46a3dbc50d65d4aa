"""The graph editor EAGLE 7: what it would complain about in the shipped files, and what they mean after it has saved them.

The rules and the changes of values are EAGLE 7.0.1's, written down from its behaviour: there is no package of it to run here.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dlg_ml_tasks.components.palette import build_palette, task_of
from dlg_ml_tasks.components.parameters import read_force, read_parameters
from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.check import check
from dlg_ml_tasks.graphs.document import settle, task_nodes, value_of
from dlg_ml_tasks.graphs.shipped import SHIPPED
from dlg_ml_tasks.graphs.submit import translate

NODES = ["127.0.0.1:8000:5555:6666"]
Document = dict[str, Any]

# Ports that a node of the category may have at most (not events): inputs, outputs.
CATEGORIES = {
    "DALiuGEApp": ("Application", 10**6, 10**6),
    "Memory": ("Data", 1, 10**6),
    "Scatter": ("Construct", 0, 0),
}
REQUIRED = {
    "Application": {
        "dropclass": "ComponentParameter",
        "execution_time": "ConstraintParameter",
        "num_cpus": "ConstraintParameter",
    },
    "Data": {"dropclass": "ComponentParameter", "data_volume": "ConstraintParameter"},
    "Construct": {"num_of_copies": "ConstructParameter"},
}
# Fields of the components of the same name as the category in EAGLE's own palettes, where nothing is changeable.
OWN_FIELDS = {
    "DALiuGEApp": {"log_level", "dropclass", "base_name", "num_cpus", "execution_time", "group_start"},
    "Memory": {
        "pydata",
        "io",
        "block_skip",
        "persist",
        "data_volume",
        "group_end",
        "streaming",
        "dropclass",
        "base_name",
    },
    "Scatter": {"num_of_copies"},
}
FIELD_NAMES = {
    *("data_volume", "dropclass", "execution_time", "group_start", "group_end", "filepath", "input_error_threshold"),
    *("num_of_copies", "num_cpus", "num_of_inputs", "gather_axis", "num_of_iter", "n_tries", "streaming", "persist"),
    *("m", "k", "n", "base_name", "self", "image", "docker_tag", "docker_digest", "true", "false", "func_code"),
    *("func_name", "pydata", "command"),
}


def complaints(document: Document) -> Iterator[str]:
    """What EAGLE's check would say of a graph, or of a palette, errors and warnings alike."""
    palette = document["modelData"]["fileType"] == "palette"
    yield from head_complaints(document)
    nodes = {node["id"]: node for node in document["nodeDataArray"]}
    ids = [*nodes, *(field["id"] for node in nodes.values() for field in node["fields"])]
    yield from (f"id {each} is used {count} times" for each, count in Counter(ids).items() if count > 1)
    ends = {link[end] for link in document["linkDataArray"] for end in ("from", "to")}
    for node in nodes.values():
        yield from node_complaints(node)
        if palette:
            if (node["x"], node["y"]) != (0, 0) or "parentId" in node:
                yield f"{node['name']}: a palette's component has a place"
        elif node["id"] not in ends and node["category"] != "Scatter":
            yield f"{node['name']} has no connected edges"
        parent = node.get("parentId")
        if parent is not None and not nodes[parent]["isGroup"]:
            yield f"{node['name']} stands in {nodes[parent]['name']}, which is no group"
        if node["category"] == "Memory" and not any(link["to"] == node["id"] for link in document["linkDataArray"]):
            yield f"Memory node {node['name']} has no input and no data"
    for link in document["linkDataArray"]:
        yield from link_complaints(nodes, link)
    links = Counter((link["fromPort"], link["toPort"]) for link in document["linkDataArray"])
    yield from ("an edge is a duplicate" for count in links.values() if count > 1)


def head_complaints(document: Document) -> Iterator[str]:
    head = document["modelData"]
    if not head["detailedDescription"] or not head["shortDescription"]:
        yield "Graph does not have a description"
    if not isinstance(head["lastModifiedDatetime"], int | float):
        yield "Last Modified Datetime contains string instead of number"
    if head["schemaVersion"] != "OJS":
        yield f"Unknown schema version: {head['schemaVersion']}"
    here = {
        "repositoryService": "File",
        "repositoryBranch": head["repoBranch"],
        "repositoryName": head["repo"],
        "repositoryPath": head["filePath"].rpartition("/")[0],
        "repositoryFileName": head["filePath"].rpartition("/")[2],
        "commitHash": head["commitHash"],
        "downloadUrl": head["downloadUrl"],
    }
    configurations = document.get("graphConfigurations", {})
    if document.get("activeGraphConfigId") not in (None, *configurations):
        yield "Active Graph Config Id does not match a known graph config"
    nodes = {node["id"]: {field["id"] for field in node["fields"]} for node in document["nodeDataArray"]}
    for configuration in configurations.values():
        if configuration["modelData"]["graphLocation"] != here:
            yield "Graph Config graph location does not match the location of the parent graph"
        for node, fields in configuration["nodes"].items():
            if not set(fields["fields"]) <= nodes.get(node, set()):
                yield "Field in graph config is not present in Logical Graph"


def node_complaints(node: Document) -> Iterator[str]:
    name, category = node["name"], node["category"]
    kind, most_inputs, most_outputs = CATEGORIES[category]
    if node["categoryType"] != kind:
        yield f"{name} has incorrect category type {node['categoryType']}"
    kinds = {field["name"]: field["parameterType"] for field in node["fields"]}
    yield from (f"{name} lacks {field}" for field, want in REQUIRED[kind].items() if kinds.get(field) != want)
    for field in node["fields"]:
        if field.get("changeable") and field["name"] in OWN_FIELDS[category]:
            yield f"{name}: field {field['name']} has incorrect changeable property"
        if not field["id"] or not field["type"].strip():
            yield f"{name}: field {field['name']} has no id or no type"
        if field["usage"] != "NoPort" and field["type"] == "Unknown":
            yield f"{name}: type of port {field['name']} is not specified"
        if field["name"] not in FIELD_NAMES and field["name"].lower() in FIELD_NAMES:
            yield f"{name}: {field['name']} is a non-standard capitalization"
    twice = [
        each for each, count in Counter((f["name"], f["parameterType"]) for f in node["fields"]).items() if count > 1
    ]
    yield from (f"{name} has multiple attributes {each}" for each in twice)
    usages = Counter(field["usage"] for field in node["fields"])
    if usages["InputPort"] + usages["InputOutput"] > most_inputs:
        yield f"{name} has too many input ports"
    if usages["OutputPort"] + usages["InputOutput"] > most_outputs:
        yield f"{name} has too many output ports"
    if not isinstance(node["description"], str):
        yield f"{name}: description is no text"


def link_complaints(nodes: dict[str, Document], link: Document) -> Iterator[str]:
    source, target = nodes[link["from"]], nodes[link["to"]]
    ports = {field["id"]: field for node in (source, target) for field in node["fields"]}
    start, end = ports[link["fromPort"]], ports[link["toPort"]]
    if source["categoryType"] == target["categoryType"]:
        yield f"{source['name']} and {target['name']} are both {source['categoryType']}"
    if start["usage"] not in ("OutputPort", "InputOutput") or end["usage"] not in ("InputPort", "InputOutput"):
        yield f"edge from {source['name']} to {target['name']} does not go from an output to an input"
    types = (start["type"], end["type"])
    if "Object" not in types and not (types[0].startswith(types[1]) or types[1].startswith(types[0])):
        yield f"ports do not match: {types}"
    if link["loop_aware"] != "0" or link["closesLoop"]:
        yield "edge is loop aware"
    if source.get("parentId") != target.get("parentId"):
        yield f"Edge is not between siblings: {source['name']} to {target['name']}"


def saved(document: Document) -> Document:
    """The graph as EAGLE writes it after it was loaded and saved."""
    result = copy.deepcopy(document)
    types = {}
    for node in result["nodeDataArray"]:
        for key in ("collapsed", "expanded", "subject"):
            del node[key]
        for field in node["fields"]:
            types[field["id"]] = field["type"]
            field["value"] = rewritten(field["value"], field["type"])
            field["defaultValue"] = as_text(field["defaultValue"])
            del field["keyAttribute"]
    for configuration in result.get("graphConfigurations", {}).values():
        for node in configuration["nodes"].values():
            for field_id, field in node["fields"].items():
                field["value"] = rewritten(field["value"], types[field_id])
    result["visualDataArray"] = []
    return result


def as_text(value: object) -> str:
    """JavaScript's toString."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(as_text, value))
    if isinstance(value, dict):
        return "[object Object]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def rewritten(value: object, kind: str) -> object:
    """What a field's value becomes by its type."""
    text = as_text(value)
    if kind == "Boolean":
        return text.lower() in ("true", "1")
    try:
        if kind == "Integer":
            return int(text)
        if kind == "Float":
            number = float(text)
            return int(number) if number.is_integer() else number
    except ValueError:
        return text if kind == "Integer" else None  # NaN is written as null
    return text


def meaning(graph: Document) -> dict[str, object]:
    """What the engine would do with a graph: each task's parameters, each scatter's copies, and the links."""
    graph = settle(graph)
    result: dict[str, object] = {}
    for node, task in task_nodes(graph):
        values = {field["name"]: field["value"] for field in node["fields"]}
        result[node["name"]] = (read_parameters(task, values), read_force(values), node.get("parentId"))
    for node in graph["nodeDataArray"]:
        if node["category"] == "Scatter":
            result[node["name"]] = int(value_of(node, "num_of_copies"))
    result["links"] = sorted(json.dumps(link, sort_keys=True) for link in graph["linkDataArray"])
    return result


def drops(graph: Document) -> dict[str, object]:
    """What the engine gets of a graph: each drop's name, ports and, if it is a task, parameters."""
    result: dict[str, object] = {}
    for drop in translate(graph, "sid", NODES):
        task = task_of(drop["dropclass"])
        ports = sorted(port["name"] for port in drop.get("ports", ()))
        result[drop["oid"]] = (drop["name"], ports, (read_parameters(task, drop), read_force(drop)) if task else None)
    return result


graphs = pytest.mark.parametrize("graph", [make().build() for make in SHIPPED], ids=[make.__name__ for make in SHIPPED])


def with_every_kind_of_value() -> Document:
    graph = GraphBuilder("values", "Values that an editor may harm.")
    raw = graph.task(
        "load_raw", sources=["/a b/*.x", "s3://c/d?e=f#g"], settings={"deep": {"list": [1, None, True]}}, seed=0
    )
    data = graph.task("preprocess", recipe="p.q:R", settings={"text": 'a "b"\n'}, held_back="", on_error="skip")
    train = graph.task(
        "train", recipe="r", model_name="mé ß", learning_rate=0.0001, epochs=2, batch_size=None, force=True
    )
    promote = graph.task("promote", recipe="r", model_name="m", min_gain=2.0, max_loss=0)
    infer = graph.task("infer", recipe="r", model="models:/m@champion", held_back_only=False)
    graph.link(raw, data, port="raw")
    graph.link(data, train, port="data")
    graph.link(data, promote, port="data")
    graph.link(train, promote, port="model")
    graph.link(data, infer, port="data")
    return graph.build()


@graphs
def test_the_editor_has_nothing_to_say_of_a_shipped_graph_but_where_a_scatter_is_gathered(graph: Document) -> None:
    parents = {node["id"]: node.get("parentId") for node in graph["nodeDataArray"]}
    gathered = [link for link in graph["linkDataArray"] if parents[link["from"]] != parents[link["to"]]]
    said = list(complaints(graph))
    assert len(said) == len(gathered), said
    assert all("not between siblings" in each for each in said)


def test_the_editor_has_nothing_to_say_of_the_palette() -> None:
    assert [each for each in complaints(build_palette()) if "Memory node" not in each] == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda graph: graph["modelData"].update(detailedDescription=""), "description"),
        (lambda graph: graph["modelData"].update(filePath="other.graph"), "graph location"),
        (lambda graph: graph.update(activeGraphConfigId="x"), "Active Graph Config"),
        (lambda graph: [field.update(changeable=True) for field in graph["nodeDataArray"][1]["fields"]], "changeable"),
        (lambda graph: graph["nodeDataArray"][1]["fields"][0].update(name="Dropclass"), "capitalization"),
        (lambda graph: graph["linkDataArray"].clear(), "no connected edges"),
    ],
)
def test_the_checks_of_this_file_find_what_is_wrong(harm: Any, said: str) -> None:
    graph = copy.deepcopy(SHIPPED[-1]().build())
    harm(graph)
    assert any(said in each for each in complaints(graph))


@graphs
def test_a_shipped_graph_means_the_same_after_the_editor_has_saved_it(graph: Document) -> None:
    after = saved(graph)
    assert after != graph
    assert meaning(after) == meaning(graph)
    assert check(after) == []
    assert drops(after) == drops(graph)
    assert saved({**after, "nodeDataArray": _with_dropped_keys(after)}) == after


def test_values_of_every_kind_survive_the_editor() -> None:
    graph = with_every_kind_of_value()
    assert check(graph) == []
    assert meaning(saved(graph)) == meaning(graph)
    assert drops(saved(graph)) == drops(graph)
    tasks = {name: params for name, _, params in drops(graph).values() if params}
    assert tasks == {name: meaning(graph)[name][:2] for name in tasks}


def test_a_component_dragged_from_the_saved_palette_has_its_defaults() -> None:
    palette = build_palette()
    for before, after in zip(palette["nodeDataArray"], saved(palette)["nodeDataArray"], strict=True):
        task = task_of(value_of(after, "dropclass"))
        assert task is not None
        required = {name: "x" for name, info in task.params.model_fields.items() if info.is_required()}
        values = [{field["name"]: field["value"] for field in node["fields"]} | required for node in (before, after)]
        assert read_parameters(task, values[0]) == read_parameters(task, values[1])


def _with_dropped_keys(document: Document) -> list[Document]:
    return [
        {
            **node,
            "collapsed": False,
            "expanded": False,
            "subject": None,
            "fields": [{**field, "keyAttribute": False} for field in node["fields"]],
        }
        for node in document["nodeDataArray"]
    ]
