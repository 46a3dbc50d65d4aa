"""Building graphs, and the graphs that ship."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dlg_ml_tasks.components.palette import build_palette
from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.check import check
from dlg_ml_tasks.graphs.document import parameters_of
from dlg_ml_tasks.graphs.shipped import SHIPPED, lifecycle, write_all
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


@pytest.mark.parametrize("make", SHIPPED, ids=lambda make: make.__name__)
def test_no_two_nodes_lie_on_one_place_and_all_run_from_left_to_right(make: Any) -> None:
    graph = make().build()
    at = {node["id"]: (node["x"], node["y"]) for node in graph["nodeDataArray"]}
    assert len(set(at.values())) == len(at)
    assert all(at[link["from"]][0] < at[link["to"]][0] for link in graph["linkDataArray"])


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
