"""Recipes are found by name or import path, and their settings are checked."""

from __future__ import annotations

import numpy as np
import pytest

from dlg_ml_tasks.tasks import BadInput, load_recipe
from dlg_ml_tasks.tasks.recipe import add_counts


def test_a_shipped_recipe_is_found_by_its_short_name_and_by_import_path() -> None:
    short = load_recipe("digits", {"channels": 4})
    long = load_recipe("dlg_ml_tasks.recipes.digits:Digits", {"channels": 4})
    assert type(short) is type(long)
    assert short.settings.channels == 4


@pytest.mark.parametrize(
    "name", ["galaxies", "no.such.module:Name", "dlg_ml_tasks.tasks:Nothing", "json:JSONDecoder", ""]
)
def test_an_unknown_recipe_is_named(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe(name, {})
    assert repr(name) in str(caught.value)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(BadInput, match=r"chanels.*got 4"):
        load_recipe("digits", {"chanels": 4})


def test_counts_add_up_key_by_key_also_where_some_items_lack_a_key() -> None:
    total = add_counts([{"n": 1, "bins": np.array([1, 2])}, {"n": 2, "bins": np.array([3, 4])}, {"n": 4}])
    assert total["n"] == 7
    assert np.array_equal(total["bins"], [4, 6])
