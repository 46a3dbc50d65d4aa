"""What is refused before deployment, and why."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.graphs.check import Problem, check
from dlg_ml_tasks.graphs.document import parameters_of, ports_of, read_graph, settle
from dlg_ml_tasks.graphs.override import override, with_absolute_sources
from dlg_ml_tasks.graphs.shipped import lifecycle, survey
from dlg_ml_tasks.graphs.submit import FILE_DROP, choose_nodes, new_session_id, translate
from dlg_ml_tasks.tasks import BadInput

LIFECYCLE = settle(lifecycle().build())


@pytest.fixture
def graph() -> dict[str, Any]:
    return copy.deepcopy(LIFECYCLE)


def node_of(graph: dict[str, Any], name: str) -> dict[str, Any]:
    return next(node for node in graph["nodeDataArray"] if node["name"] == name)


def only_problem(graph: dict[str, Any]) -> Problem:
    (problem,) = check(graph)
    return problem


def unlink(graph: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    ends = (node_of(graph, source)["id"], node_of(graph, target)["id"])
    link = next(each for each in graph["linkDataArray"] if (each["from"], each["to"]) == ends)
    graph["linkDataArray"].remove(link)
    return dict(link)


def test_a_wrong_value_names_node_parameter_and_value(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "train"))["epochs"]["value"] = -1
    problem = only_problem(graph)
    assert problem.node == "train"
    assert "epochs" in problem.reason
    assert "-1" in problem.reason


def test_a_missing_required_value_is_named(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "retrain"))["model_name"]["value"] = ""
    assert "model_name" in only_problem(graph).reason


def test_a_misspelt_parameter_gets_a_suggestion(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "train"))["epochs"]["name"] = "epoch"
    assert only_problem(graph).reason == "unknown parameter 'epoch'; did you mean 'epochs'?"


def test_a_wrong_force_is_named(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "train"))["force"]["value"] = "perhaps"
    assert "perhaps" in only_problem(graph).reason


def test_parameters_of_the_engine_may_be_there(graph: dict[str, Any]) -> None:
    field = copy.deepcopy(parameters_of(node_of(graph, "train"))["epochs"])
    node_of(graph, "train")["fields"].append({**field, "name": "n_tries", "value": 2, "id": "tries"})
    assert check(graph) == []


def test_a_required_port_without_link_is_named(graph: dict[str, Any]) -> None:
    unlink(graph, "preprocess-A data", "train")
    problem = only_problem(graph)
    assert problem.node == "train"
    assert "'data'" in problem.reason


def test_two_links_to_a_port_for_one_are_refused(graph: dict[str, Any]) -> None:
    link = dict(next(each for each in graph["linkDataArray"] if each["to"] == node_of(graph, "preprocess-A")["id"]))
    graph["linkDataArray"].append({**link, "from": node_of(graph, "load-raw-B raw")["id"]})
    assert "takes one input, but 2" in only_problem(graph).reason


def test_a_model_where_files_belong_is_refused(graph: dict[str, Any]) -> None:
    link = unlink(graph, "preprocess-A data", "train")
    graph["linkDataArray"].append({**link, "from": node_of(graph, "promote model")["id"]})
    assert "takes files, but 'promote model' holds model" in only_problem(graph).reason


def test_a_misspelt_port_is_named(graph: dict[str, Any]) -> None:
    port = next(each for each in ports_of(node_of(graph, "retrain")).values() if each["name"] == "replay")
    port["name"] = "reply"
    assert "did you mean 'replay'?" in only_problem(graph).reason


def test_a_link_into_nowhere_is_named(graph: dict[str, Any]) -> None:
    next(each for each in graph["linkDataArray"] if each["to"] == node_of(graph, "infer")["id"])["toPort"] = "gone"
    assert "draw it again" in only_problem(graph).reason


@pytest.mark.parametrize("path", ["dlg_ml_tasks.components.TranApp", "no_such_package.App"])
def test_an_unknown_component_is_named(graph: dict[str, Any], path: str) -> None:
    parameters_of(node_of(graph, "infer"))["dropclass"]["value"] = path
    assert path in only_problem(graph).reason


def test_components_of_others_are_accepted(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "infer"))["dropclass"]["value"] = "dlg.apps.simple.SleepApp"
    assert check(graph) == []


def test_two_tasks_of_one_name_are_refused(graph: dict[str, Any]) -> None:
    node_of(graph, "retrain")["name"] = "train"
    assert "2 tasks have this name" in only_problem(graph).reason


SURVEY = settle(survey().build())


@pytest.fixture
def scattered() -> dict[str, Any]:
    return copy.deepcopy(SURVEY)


@pytest.mark.parametrize("value", [0, -1, "", "many", 2.5, None, True])
def test_a_scatter_whose_copies_are_no_number_is_refused(scattered: dict[str, Any], value: object) -> None:
    parameters_of(node_of(scattered, "batches"))["num_of_copies"]["value"] = value
    problem = only_problem(scattered)
    assert problem.node == "batches"
    assert repr(value) in problem.reason


def test_a_scatter_without_copies_is_refused(scattered: dict[str, Any]) -> None:
    node_of(scattered, "batches")["fields"].clear()
    assert "no parameter num_of_copies" in only_problem(scattered).reason


def test_batches_that_are_not_the_copies_are_refused(scattered: dict[str, Any]) -> None:
    parameters_of(node_of(scattered, "load_raw"))["batches"]["value"] = 4
    assert only_problem(scattered).reason.startswith("batches=4, but scatter 'batches' makes num_of_copies=3")


def test_a_batch_that_is_the_same_in_every_copy_is_refused(scattered: dict[str, Any]) -> None:
    parameters_of(node_of(scattered, "load_raw"))["batch"]["value"] = 2
    assert "same files in every copy" in only_problem(scattered).reason


def test_batches_without_a_scatter_are_refused(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "load-raw-A"))["batches"]["value"] = 4
    assert "does not stand in a scatter" in only_problem(graph).reason


def test_a_single_batch_may_be_loaded_without_a_scatter(graph: dict[str, Any]) -> None:
    fields = parameters_of(node_of(graph, "load-raw-A"))
    fields["batches"]["value"], fields["batch"]["value"] = 4, 2
    assert check(graph) == []


@pytest.mark.parametrize("category", ["Loop", "Gather", "GroupBy", "MKN", "SubGraph", "Service"])
def test_a_task_in_another_construct_is_refused_with_what_to_do(scattered: dict[str, Any], category: str) -> None:
    node_of(scattered, "batches")["category"] = category
    problems = [each for each in check(scattered) if each.node == "load_raw"]
    assert any(f"cannot stand in a {category}" in each.reason for each in problems)


def test_an_unknown_construct_is_refused(scattered: dict[str, Any]) -> None:
    node_of(scattered, "batches")["category"] = "Sprinkle"
    assert "unknown construct 'Sprinkle'" in check(scattered)[0].reason


def test_a_construct_that_is_gone_is_named(scattered: dict[str, Any]) -> None:
    scattered["nodeDataArray"].remove(node_of(scattered, "batches"))
    assert all("construct that does not exist" in each.reason for each in check(scattered) if each.node == "preprocess")


def test_a_scatter_within_a_scatter_is_refused(scattered: dict[str, Any]) -> None:
    outer = {**copy.deepcopy(node_of(scattered, "batches")), "id": "outer", "name": "outer"}
    scattered["nodeDataArray"].append(outer)
    node_of(scattered, "batches")["parentId"] = "outer"
    assert {each.node for each in check(scattered)} == {"load_raw", "preprocess"}


def test_gathering_into_a_port_for_one_is_refused(scattered: dict[str, Any]) -> None:
    for name in ("preprocess", "data"):
        del node_of(scattered, name)["parentId"]
    problem = only_problem(scattered)
    assert (problem.node, "takes one input" in problem.reason) == ("preprocess", True)


def test_links_between_scatters_are_refused(scattered: dict[str, Any]) -> None:
    scattered["nodeDataArray"].append({**copy.deepcopy(node_of(scattered, "batches")), "id": "two", "name": "two"})
    for name in ("preprocess", "data"):
        node_of(scattered, name)["parentId"] = "two"
    assert any("stands in another scatter" in each.reason for each in check(scattered))


def test_a_configuration_that_sets_what_is_not_there_is_refused() -> None:
    graph = survey().build()
    [configuration] = graph["graphConfigurations"].values()
    configuration["nodes"]["gone"] = {"fields": {"x": {"value": 1}}}
    load = node_of(graph, "load_raw")["id"]
    configuration["nodes"][load]["fields"]["old"] = {"value": 1}
    assert [str(each) for each in check(graph)] == [
        "configuration: it sets field 'old' of 'load_raw', which does not exist; remove it in EAGLE",
        "configuration: it sets node 'gone', which does not exist; remove it in EAGLE",
    ]


def test_an_active_configuration_that_does_not_exist_is_refused() -> None:
    assert "'other' does not exist" in only_problem({**survey().build(), "activeGraphConfigId": "other"}).reason


def test_a_wrong_value_in_the_configuration_is_found() -> None:
    graph = survey().build()
    [configuration] = graph["graphConfigurations"].values()
    train = node_of(graph, "train")
    field = parameters_of(train)["max_failed_batches"]["id"]
    configuration["nodes"][train["id"]]["fields"][field]["value"] = -1
    assert "max_failed_batches" in only_problem(graph).reason


def test_an_override_wins_over_the_configuration() -> None:
    changed = override(survey().build(), ["recipe=digits"])
    drops = translate(changed, "sid", ["127.0.0.1:8000:5555:6666"])
    assert {drop["recipe"] for drop in drops if "recipe" in drop} == {"digits"}


@pytest.mark.parametrize("setting", ["batches=8", "load_raw.batches=8", "batches.num_of_copies=8"])
def test_the_number_of_batches_is_set_in_one_place(setting: str) -> None:
    changed = override(survey().build(), [setting])
    assert check(changed) == []
    assert len([d for d in translate(changed, "sid", ["127.0.0.1:8000:5555:6666"]) if d["name"] == "load_raw"]) == 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not JSON"), ("[]", "no nodeDataArray"), ('{"nodes": {}}', "schema V4"), (None, "No such file")],
)
def test_a_file_that_is_no_graph_is_refused_with_the_reason(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "x.graph"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_graph(path)


def test_an_override_changes_one_node_all_of_a_task_or_all_that_have_it(graph: dict[str, Any]) -> None:
    changed = override(graph, ["recipe=digits", "load_raw.seed=7", "load-raw-B.seed=8", "train.epochs=3"])
    values = {
        node["name"]: {k: v["value"] for k, v in parameters_of(node).items()} for node in changed["nodeDataArray"]
    }
    assert {v["recipe"] for v in values.values() if "recipe" in v} == {"digits"}
    assert (values["load-raw-A"]["seed"], values["load-raw-B"]["seed"]) == ("7", "8")
    assert (values["train"]["epochs"], values["retrain"]["epochs"]) == ("3", "")
    assert check(changed) == []


def test_an_override_leaves_the_graph_alone(graph: dict[str, Any]) -> None:
    override(graph, ["recipe=digits"])
    assert graph == LIFECYCLE


def test_a_value_may_hold_equal_signs_and_dots(graph: dict[str, Any]) -> None:
    changed = override(graph, ['load-raw-A.sources=["https://x.org/a?b=c.d"]'])
    assert parameters_of(node_of(changed, "load-raw-A"))["sources"]["value"] == '["https://x.org/a?b=c.d"]'


@pytest.mark.parametrize(
    ("setting", "listed"),
    [
        ("trian.epochs=3", "train"),
        ("train.epoch=3", "epochs"),
        ("epoch=3", "epochs"),
        ("epochs", "node.parameter=value"),
    ],
)
def test_an_override_of_what_does_not_exist_lists_what_does(graph: dict[str, Any], setting: str, listed: str) -> None:
    with pytest.raises(BadInput, match=listed):
        override(graph, [setting])


def test_a_bad_override_is_found_by_the_check(graph: dict[str, Any]) -> None:
    assert "learning_rate" in only_problem(override(graph, ["train.learning_rate=fast"])).reason


def test_a_graph_cannot_be_placed_on_no_node() -> None:
    with pytest.raises(BadInput, match="no node manager"):
        choose_nodes([], None)


def test_translation_leaves_the_graph_alone_and_no_reproducibility_data_in(graph: dict[str, Any]) -> None:
    drops = translate(graph, "sid", ["127.0.0.1:8000:5555:6666", "127.0.0.1:8010:5556:6667"])
    assert graph == LIFECYCLE
    assert all("reprodata" not in drop for drop in drops)
    assert {drop["node"] for drop in drops} == {"127.0.0.1:8000:5555:6666", "127.0.0.1:8010:5556:6667"}


def test_a_file_without_a_name_gets_one_of_its_own(graph: dict[str, Any]) -> None:
    parameters_of(node_of(graph, "train model"))["dropclass"]["value"] = FILE_DROP
    (drop,) = (drop for drop in translate(graph, "sid", ["n"]) if drop["name"] == "train model")
    assert drop["filepath"] == "{uid}"


def test_a_session_is_named_after_its_graph_and_no_two_share_a_name(graph: dict[str, Any]) -> None:
    assert new_session_id(graph).startswith("lifecycle-")
    assert new_session_id(graph) != new_session_id(graph)
    graph["modelData"]["filePath"] = "some where/my graph.v2.graph"
    assert new_session_id(graph).startswith("my-graph-v2-")


def test_relative_sources_are_taken_from_the_submitters_folder(graph: dict[str, Any]) -> None:
    given = ["night/*.uvh5", "/data/x.uvh5", "s3://bucket/y", "sample:night-A"]
    parameters_of(node_of(graph, "load-raw-A"))["sources"]["value"] = json.dumps(given)
    changed = with_absolute_sources(graph, Path("/home/me"))
    sources = json.loads(parameters_of(node_of(changed, "load-raw-A"))["sources"]["value"])
    assert sources == ["/home/me/night/*.uvh5", *given[1:]]
