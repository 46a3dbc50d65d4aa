"""A small simulated night, preprocessed once for all tests of the recipe rfi."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlg_ml_tasks.recipes.rfi import Rfi
from dlg_ml_tasks.recipes.rfi.settings import RfiSettings
from dlg_ml_tasks.recipes.rfi.simulate import NIGHTS, copy_real_observation, simulate_night
from dlg_ml_tasks.tasks.recipe import Item

TRAIN, HELD_BACK = "zen.A.train.00.uvh5", "zen.A.heldback.00.uvh5"


@pytest.fixture(scope="session")
def rfi() -> Rfi:
    return Rfi(RfiSettings(pictures=1))


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training and one held-back observation of three baselines, and the real one."""
    folder = tmp_path_factory.mktemp("night")
    simulate_night(NIGHTS["A"], folder, seed=3, train_files=1, held_back_files=1, baselines=3)
    copy_real_observation(folder)
    return folder


@pytest.fixture(scope="session")
def items(rfi: Rfi, night: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    """Every observation of the night, preprocessed, by name."""
    folder = tmp_path_factory.mktemp("preprocessed")
    made = {}
    for raw in sorted(night.glob("*.uvh5")):
        (folder / raw.name).mkdir()
        rfi.preprocess(raw, folder / raw.name)
        made[raw.name] = Item(raw.name, folder / raw.name, held_back="heldback" in raw.name, raw=raw)
    return made


@pytest.fixture
def train_item(items: dict[str, Item]) -> Item:
    return items[TRAIN]


@pytest.fixture
def held_back_item(items: dict[str, Item]) -> Item:
    return items[HELD_BACK]
