"""What a drop's values become when they are read as a task's parameters."""

from __future__ import annotations

import pytest

from dlg_ml_tasks.components.parameters import read_force, read_parameters, to_graph_value
from dlg_ml_tasks.tasks import TASKS, BadInput

TRAIN = {"recipe": "digits", "model_name": "m"}


@pytest.mark.parametrize(
    ("value", "expected"), [("False", False), (False, False), ("true", True), (0, False), ("1", True)]
)
def test_truth_is_read_from_text(value: object, expected: bool) -> None:
    params = read_parameters(TASKS["infer"], {"recipe": "r", "model": "models:/m@champion", "held_back_only": value})
    assert params.model_dump()["held_back_only"] is expected


def test_falsy_values_count() -> None:
    params = read_parameters(TASKS["promote"], {**TRAIN, "max_loss": 0, "min_gain": "0"}).model_dump()
    assert (params["max_loss"], params["min_gain"]) == (0.0, 0.0)


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_value_means_the_default(empty: str | None) -> None:
    params = read_parameters(TASKS["train"], {**TRAIN, "seed": empty, "epochs": empty, "settings": empty}).model_dump()
    assert (params["seed"], params["epochs"], params["settings"]) == (0, None, {})


def test_an_empty_text_is_a_text() -> None:
    assert read_parameters(TASKS["preprocess"], {"recipe": "r", "held_back": ""}).model_dump()["held_back"] == ""


def test_json_text_becomes_objects_and_lists() -> None:
    params = read_parameters(
        TASKS["load_raw"], {"sources": '["a", "b"]', "settings": '{"deep": true, "none": null}'}
    ).model_dump()
    assert params["sources"] == ["a", "b"]
    assert params["settings"] == {"deep": True, "none": None}


def test_whole_numbers_may_come_as_floats() -> None:
    assert read_parameters(TASKS["train"], {**TRAIN, "epochs": 2.0}).model_dump()["epochs"] == 2


def test_the_engines_own_values_are_left_alone() -> None:
    read_parameters(TASKS["train"], {**TRAIN, "oid": "x", "num_cpus": 1, "fields": [], "data": ""})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**TRAIN, "epochs": -1}, ("epochs", "-1")),
        ({"recipe": "r"}, ("model_name", "required")),
        ({**TRAIN, "settings": "{broken"}, ("settings", "{broken")),
        ({**TRAIN, "threads": "many"}, ("threads", "many")),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as raised:
        read_parameters(TASKS["train"], values)
    assert "\n" not in str(raised.value)
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), ("", False), ("False", False), ("true", True), (True, True)]
)
def test_force_is_off_unless_said(value: object, expected: bool) -> None:
    assert read_force({"force": value}) is expected


def test_a_wrong_force_is_refused() -> None:
    with pytest.raises(BadInput, match="maybe"):
        read_force({"force": "maybe"})


@pytest.mark.parametrize("value", [{"a": [1, None]}, ["x"], {}])
def test_objects_go_through_a_graph_as_json_text(value: object) -> None:
    text = to_graph_value(value)
    assert isinstance(text, str)
    settings = value if isinstance(value, dict) else {"list": value}
    params = read_parameters(TASKS["preprocess"], {"recipe": "r", "settings": to_graph_value(settings)})
    assert params.model_dump()["settings"] == settings
