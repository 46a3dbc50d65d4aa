"""Parameters are checked before any work is done, and read what graphs and command lines carry."""

from __future__ import annotations

import pytest

from dlg_ml_tasks.tasks import TASKS, BadInput

TRAIN = {"recipe": "digits", "model_name": "digits"}


def test_empty_text_means_the_recipes_own_value() -> None:
    assert TASKS["train"].validate({**TRAIN, "epochs": "", "learning_rate": ""}).epochs is None


def test_lists_and_objects_come_as_json_text() -> None:
    params = TASKS["load_raw"].validate({"sources": '["a", "b"]', "settings": '{"channels": 4}'})
    assert params.sources == ["a", "b"]
    assert params.settings == {"channels": 4}


def test_a_plain_source_is_a_list_of_one() -> None:
    assert TASKS["load_raw"].validate({"sources": "/data/*.uvh5"}).sources == ["/data/*.uvh5"]


@pytest.mark.parametrize(
    ("task", "given", "named"),
    [
        ("train", {**TRAIN, "epochs": -1}, ("epochs", "-1")),
        ("train", {**TRAIN, "epochs": "many"}, ("epochs", "many")),
        ("train", {**TRAIN, "epoch": 3}, ("epoch", "3")),
        ("train", {**TRAIN, "model_name": "a/b"}, ("model_name", "a/b")),
        ("train", {"model_name": "digits"}, ("recipe",)),
        ("train", {**TRAIN, "settings": "{broken"}, ("settings", "{broken")),
        ("load_raw", {"sources": []}, ("sources",)),
        ("load_raw", {"sources": "x", "on_error": "ignore"}, ("on_error", "ignore")),
        ("promote", {**TRAIN, "max_loss": -0.1}, ("max_loss", "-0.1")),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(task: str, given: dict[str, object], named: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        TASKS[task].validate(given)
    for text in (task, *named):
        assert text in str(caught.value)


def test_a_missing_unknown_or_wrong_input_is_refused() -> None:
    train, load_raw = TASKS["train"], TASKS["load_raw"]
    with pytest.raises(BadInput, match="needs its input 'data'"):
        train.connect({})
    with pytest.raises(BadInput, match="no input"):
        load_raw.connect({"data": []})
