"""Building graphs, and the graphs that ship."""

from __future__ import annotations

import importlib.resources
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dlg_ml_tasks.components.palette import build_palette
from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.check import check
from dlg_ml_tasks.graphs.document import configured, parameters_of
from dlg_ml_tasks.graphs.shipped import SHIPPED, lifecycle, survey, write_all
from dlg_ml_tasks.graphs.submit import translate
from dlg_ml_tasks.tasks import BadInput

FILES = Path(__file__).parents[2] / "graphs"
NODES = ["127.0.0.1:8000:5555:6666"]


def test_the_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    write_all(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in FILES.iterdir())
    for name in written:
        assert (FILES / name).read_text() == (tmp_path / name).read_text(), "run: dlg-ml graphs write"


@pytest.mark.parametrize("make", SHIPPED, ids=lambda make: make.__name__)
def test_a_shipped_graph_is_valid_and_without_problems(make: Any) -> None:
    graph = make().build()
    jsonschema.validate(graph, json.loads((importlib.resources.files("dlg.dropmake") / "lg.graph.schema").read_text()))
    assert check(graph) == []


@pytest.mark.parametrize("make", SHIPPED, ids=lambda make: make.__name__)
def test_ids_are_unique_in_a_graph_and_against_the_palette(make: Any) -> None:
    nodes = [*make().build()["nodeDataArray"], *build_palette()["nodeDataArray"]]
    ids = [node["id"] for node in nodes] + [field["id"] for node in nodes for field in node["fields"]]
    assert len(ids) == len(set(ids))


def radius_of(graph: dict[str, Any], node: dict[str, Any]) -> float:
    """As EAGLE draws it: a scatter as a circle around what stands in it."""
    inside = [each for each in graph["nodeDataArray"] if each.get("parentId") == node["id"]]
    if node["category"] == "Scatter":
        return max(math.dist((node["x"], node["y"]), (each["x"], each["y"])) + 25 for each in inside) + 60
    return {"DALiuGEApp": 25, "Memory": 18}[node["category"]]


def assert_readable(graph: dict[str, Any]) -> None:
    """Nothing lies on anything, a scatter holds what stands in it and nothing else, and all runs from left to right."""
    nodes = {node["id"]: node for node in graph["nodeDataArray"]}
    for one, other in itertools.combinations(nodes.values(), 2):
        apart = math.dist((one["x"], one["y"]), (other["x"], other["y"]))
        if other["id"] == one.get("parentId") or one["id"] == other.get("parentId"):
            assert apart + min(radius_of(graph, one), radius_of(graph, other)) < max(
                radius_of(graph, one), radius_of(graph, other)
            )
        else:
            assert apart > radius_of(graph, one) + radius_of(graph, other), (one["name"], other["name"])
    for link in graph["linkDataArray"]:
        start, end = nodes[link["from"]], nodes[link["to"]]
        assert start["x"] < end["x"]
        between = [n for n in nodes.values() if n["category"] != "Scatter" and start["x"] < n["x"] < end["x"]]
        if start["y"] == end["y"]:
            assert not [n["name"] for n in between if n["y"] == start["y"]], (start["name"], end["name"])


@pytest.mark.parametrize("make", SHIPPED, ids=lambda make: make.__name__)
def test_a_person_reads_a_shipped_graph_from_left_to_right(make: Any) -> None:
    assert_readable(make().build())


@pytest.mark.parametrize(("letters", "others"), [("A", 4), ("ABC", 4), ("AB", 0)])
def test_graphs_of_high_and_wide_scatters_and_of_branches_are_readable_too(letters: str, others: int) -> None:
    graph = GraphBuilder("g", "d")
    gathered = []
    for letter in letters:
        with graph.scatter(f"batches {letter}", copies=2):
            raw = graph.task("load_raw", name=f"load {letter}", sources="x", recipe="digits")
            data = graph.task("preprocess", name=f"preprocess {letter}", recipe="digits")
            graph.link(raw, data, port="raw")
            infer = graph.task("infer", name=f"infer {letter}", recipe="digits", model="models:/m@champion")
            graph.link(data, infer, port="data")
            for number in range(others):
                other = graph.task("load_raw", name=f"other {letter} {number}", sources="x", recipe="digits")
                graph.link(other, data, port="after")
            gathered.append(data)
    train = graph.task("train", recipe="digits", model_name="m")
    for data in gathered:
        graph.link(data, train, port="data")
    alone = graph.task("load_raw", name="alone", sources="x")
    beside = graph.task("preprocess", name="beside", recipe="digits")
    graph.link(alone, beside, port="raw")
    assert_readable(graph.build())


def test_each_task_in_a_scatter_exists_once_per_copy_and_one_outside_gathers_them() -> None:
    drops = translate(survey().build(), "sid", NODES)
    names = Counter(drop["name"] for drop in drops)
    assert (names["load_raw"], names["preprocess"], names["train"]) == (3, 3, 1)
    assert {drop["batches"] for drop in drops if drop["name"] == "load_raw"} == {3}
    train = next(drop for drop in drops if drop["name"] == "train")
    assert [port["name"] for port in train["ports"] if port["direction"] == "input"] == ["data"] * 3


def test_what_the_author_sets_stands_in_the_configuration_with_its_value() -> None:
    graph = survey().build()
    names = {
        (node["name"], field["name"]): (node["id"], field["id"], field["value"])
        for node in graph["nodeDataArray"]
        for field in node["fields"]
    }
    chosen = set(configured(graph))
    assert names["load_raw", "sources"] in chosen
    assert names["batches", "num_of_copies"] in chosen
    assert names["train", "epochs"] not in chosen


def test_what_a_user_changes_in_the_configuration_is_what_the_translator_takes() -> None:
    graph = survey().build()
    [configuration] = graph["graphConfigurations"].values()
    for node in configuration["nodes"].values():
        for field in node["fields"].values():
            field["value"] = 5 if field["value"] == 3 else field["value"]
    assert Counter(drop["name"] for drop in translate(graph, "sid", NODES))["load_raw"] == 5
    assert check(graph) == []


def test_the_translator_binds_every_link_of_the_lifecycle_to_its_port() -> None:
    drops = {
        drop["name"]: drop
        for drop in translate(lifecycle().build(), "sid", NODES)
        if drop["categoryType"] == "Application"
    }
    ports = {
        name: sorted(p["name"] for p in drop["ports"] if p["direction"] == "input") for name, drop in drops.items()
    }
    assert ports["retrain"] == ["data", "model", "replay"]
    assert ports["promote"] == ["data", "earlier", "model"]
    assert ports["infer"] == ["after", "data", "data"]


def test_a_wrong_parameter_is_refused_while_building() -> None:
    graph = GraphBuilder("g", "d")
    with pytest.raises(BadInput, match="epoch_count"):
        graph.task("train", recipe="digits", model_name="m", epoch_count=3)
    with pytest.raises(BadInput, match="-3"):
        graph.task("train", recipe="digits", model_name="m", epochs=-3)


def test_settings_stand_in_the_graph_as_json_text() -> None:
    graph = GraphBuilder("g", "d")
    node = graph.task("preprocess", recipe="digits", settings={"deep": True})
    assert parameters_of(node.document)["settings"]["value"] == '{"deep": true}'


def test_wrong_links_are_refused_while_building() -> None:
    graph = GraphBuilder("g", "d")
    raw = graph.task("load_raw", sources="x")
    data = graph.task("preprocess", recipe="digits")
    train = graph.task("train", recipe="digits", model_name="m")
    promote = graph.task("promote", recipe="digits", model_name="m")
    with pytest.raises(BadInput, match=r"'rawest'.*raw, after"):
        graph.link(raw, data, port="rawest")
    with pytest.raises(BadInput, match="takes model, but 'load_raw' makes files"):
        graph.link(raw, promote, port="model")
    graph.link(train, promote, port="model")
    with pytest.raises(BadInput, match="has one already"):
        graph.link(train, promote, port="model")


def test_a_required_port_without_link_is_refused() -> None:
    graph = GraphBuilder("g", "d")
    graph.task("train", recipe="digits", model_name="m")
    with pytest.raises(BadInput, match="'data'"):
        graph.build()


def test_names_are_given_once_and_tasks_must_exist() -> None:
    graph = GraphBuilder("g", "d")
    graph.task("load_raw", sources="x")
    with pytest.raises(BadInput, match="already"):
        graph.task("load_raw", sources="x")
    with pytest.raises(BadInput, match="there are: load_raw"):
        graph.task("loadraw")


def test_wrong_scatters_are_refused_while_building() -> None:
    graph = GraphBuilder("g", "d")
    with pytest.raises(BadInput, match="1 or more, not 0"), graph.scatter("none", copies=0):
        pass
    with graph.scatter("one", copies=2):
        raw = graph.task("load_raw", sources="x", recipe="digits")
        with pytest.raises(BadInput, match="stands in scatter 'one'"), graph.scatter("inner", copies=2):
            pass
    with graph.scatter("two", copies=2):
        data = graph.task("preprocess", recipe="digits")
    with pytest.raises(BadInput, match="gather in a task outside"):
        graph.link(raw, data, port="raw")
    outside = graph.task("preprocess", name="outside", recipe="digits")
    with pytest.raises(BadInput, match="takes one input, but 'load_raw' makes 2"):
        graph.link(raw, outside, port="raw")


def test_tasks_that_wait_for_each_other_are_refused() -> None:
    graph = GraphBuilder("g", "d")
    one = graph.task("load_raw", name="one", sources="x")
    two = graph.task("load_raw", name="two", sources="x")
    graph.link(one, two, port="after")
    graph.link(two, one, port="after")
    with pytest.raises(BadInput, match="wait for each other"):
        graph.build()


def test_tasks_may_be_placed_in_any_order() -> None:
    graph = GraphBuilder("g", "d")
    data = graph.task("preprocess", recipe="digits")
    raw = graph.task("load_raw", sources="x")
    graph.link(raw, data, port="raw")
    assert_readable(graph.build())
