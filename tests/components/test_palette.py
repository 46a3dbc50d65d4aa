"""The palette: valid, complete, free of what the editor would complain about or destroy."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import jsonschema
import pytest

import dlg_ml_tasks.components
from dlg_ml_tasks.components.palette import build_palette, drop_class, task_of, write_json
from dlg_ml_tasks.components.parameters import read_force, read_parameters
from dlg_ml_tasks.tasks import TASKS

ENGINE_KEYS = {
    "config_data",
    "mode",
    "weight",
    "rank",
    "iid",
    "node",
    "status",
    "name",
    "len",
    "oid",
    "uid",
    "ports",
    "island",
}


@pytest.fixture(scope="module")
def palette() -> dict[str, Any]:
    return build_palette()


def _fields(node: dict[str, Any], usage: str) -> dict[str, dict[str, Any]]:
    return {field["name"]: field for field in node["fields"] if field["usage"] == usage}


def test_the_translators_schema_accepts_it(palette: dict[str, Any]) -> None:
    schema = json.loads((importlib.resources.files("dlg.dropmake") / "lg.graph.schema").read_text())
    jsonschema.validate(palette, schema)


def test_each_task_has_one_component_that_the_engine_can_import(palette: dict[str, Any]) -> None:
    classes = [
        next(f["value"] for f in node["fields"] if f["name"] == "dropclass") for node in palette["nodeDataArray"]
    ]
    assert [task_of(each) for each in classes] == list(TASKS.values())
    for each in classes:
        assert getattr(dlg_ml_tasks.components, each.rpartition(".")[2]).task.name in TASKS


def test_ids_are_unique_and_the_same_in_every_build(palette: dict[str, Any]) -> None:
    ids = [field["id"] for node in palette["nodeDataArray"] for field in node["fields"]]
    ids += [node["id"] for node in palette["nodeDataArray"]]
    assert len(ids) == len(set(ids))
    assert palette == build_palette()


def test_names_are_unique_in_a_node(palette: dict[str, Any]) -> None:
    for node in palette["nodeDataArray"]:
        names = [(field["name"], field["parameterType"]) for field in node["fields"]]
        assert len(names) == len(set(names)), node["name"]


def test_required_fields_of_the_editor_are_there(palette: dict[str, Any]) -> None:
    for node in palette["nodeDataArray"]:
        kinds = {field["name"]: field["parameterType"] for field in node["fields"]}
        assert kinds["dropclass"] == "ComponentParameter"
        assert kinds["execution_time"] == kinds["num_cpus"] == "ConstraintParameter"


def test_no_value_is_of_a_kind_that_the_editor_destroys(palette: dict[str, Any]) -> None:
    values = [
        field[key] for node in palette["nodeDataArray"] for field in node["fields"] for key in ("value", "defaultValue")
    ]
    assert all(isinstance(value, str | int | float | bool) for value in values)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_parameter_and_port_is_described(palette: dict[str, Any], task: Any) -> None:
    node = next(each for each in palette["nodeDataArray"] if each["name"] == drop_class(task).rpartition(".")[2])
    parameters = _fields(node, "NoPort")
    assert set(task.params.model_fields) <= set(parameters)
    assert all(field["description"] for field in node["fields"])
    inputs = {**_fields(node, "InputPort"), **_fields(node, "InputOutput")}
    outputs = {**_fields(node, "OutputPort"), **_fields(node, "InputOutput")}
    assert set(inputs) == {*(port.name for port in task.inputs), "after"}
    assert set(outputs) == {task.output.name}


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_defaults_are_valid_once_the_required_values_are_given(palette: dict[str, Any], task: Any) -> None:
    node = next(each for each in palette["nodeDataArray"] if each["name"] == drop_class(task).rpartition(".")[2])
    values = {name: field["value"] for name, field in _fields(node, "NoPort").items()}
    required = {name: "x" for name, info in task.params.model_fields.items() if info.is_required()}
    assert read_parameters(task, {**values, **required}) == task.params.model_validate(required)
    assert read_force(values) is False


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_no_parameter_has_the_name_of_a_port_or_of_an_engine_key(task: Any) -> None:
    """The engine keeps parameters, port values and keys of its own in one dictionary."""
    ports = {*(port.name for port in task.inputs), task.output.name, "after"}
    assert not set(task.params.model_fields) & (ports | ENGINE_KEYS | {"force"})


def test_types_and_options_suit_the_editor(palette: dict[str, Any]) -> None:
    fields = {field["name"]: field for node in palette["nodeDataArray"] for field in node["fields"]}
    assert {
        name: fields[name]["type"] for name in ("epochs", "learning_rate", "settings", "held_back_only", "recipe")
    } == {
        "epochs": "Integer",
        "learning_rate": "Float",
        "settings": "Json",
        "held_back_only": "Boolean",
        "recipe": "String",
    }
    assert (fields["on_error"]["type"], fields["on_error"]["options"]) == ("Select", ["stop", "skip"])
    assert (fields["executor"]["type"], fields["executor"]["options"]) == ("Select", ["local", "slurm"])
    assert (fields["slurm"]["type"], fields["slurm"]["value"]) == ("Json", "{}")
    assert "time_limit" in fields["slurm"]["description"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Any) -> None:
    path = tmp_path / "x.palette"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
