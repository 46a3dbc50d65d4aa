"""The digits recipe's own behaviour; tests/tasks runs it through all tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlg_ml_tasks.recipes.batches import SeededBatches
from dlg_ml_tasks.recipes.digits import Digits
from dlg_ml_tasks.tasks import BadInput, Item, Plan, load_recipe

PLAN = Plan(epochs=2, steps_per_epoch=5, batch_size=8, learning_rate=0.01, seed=3)


def _item(recipe: Digits, raw: Path, out: Path) -> Item:
    out.mkdir()
    recipe.preprocess(raw, out)
    return Item(raw.name, out)


def test_the_nights_share_no_image_and_have_the_same_seeded_files(tmp_path: Path) -> None:
    recipe = load_recipe("digits", {})
    contents = {}
    for night, copy in (("night-A", "1"), ("night-A", "2"), ("night-B", "1")):
        out = tmp_path / (night + copy)
        out.mkdir()
        recipe.sample(night, out, seed=0)
        contents[night + copy] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert contents["night-A1"] == contents["night-A2"]
    count = {
        night: sum(len(np.load(path)["images"]) for path in (tmp_path / f"{night}1").iterdir())
        for night in ("night-A", "night-B")
    }
    assert sum(count.values()) == 1797


def test_preprocessing_keeps_images_and_labels(tmp_path: Path) -> None:
    recipe = load_recipe("digits", {})
    images = np.arange(128, dtype=np.uint8).reshape(2, 8, 8) % 17
    np.savez(tmp_path / "labelled.npz", images=images, labels=[1, 2])
    np.savez(tmp_path / "plain.npz", images=images)
    labelled = _item(recipe, tmp_path / "labelled.npz", tmp_path / "a")
    plain = _item(recipe, tmp_path / "plain.npz", tmp_path / "b")
    assert recipe.is_labelled(labelled)
    assert not recipe.is_labelled(plain)
    batch = next(iter(recipe.data([labelled], (), PLAN).train_dataloader()))
    assert batch[0].shape == (8, 1, 8, 8)
    assert float(batch[0].max()) == 1.0


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", images=np.zeros((2, 9, 8), np.uint8))
    with pytest.raises(BadInput, match=r"wide\.npz.*\(2, 9, 8\)"):
        load_recipe("digits", {}).preprocess(tmp_path / "wide.npz", tmp_path)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    batches = SeededBatches(100, PLAN)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    batches.set_epoch(0)
    assert list(batches) == first
    assert first != second
    assert [len(batch) for batch in first] == [8] * 5


def test_batches_of_few_examples_repeat_them_evenly() -> None:
    drawn = np.bincount(np.concatenate(list(SeededBatches(10, PLAN))))
    assert drawn.tolist() == [4] * 10


def test_accuracy_counts_labelled_images_only(tmp_path: Path) -> None:
    recipe = load_recipe("digits", {})
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0, 0, 0, 5])
    item = _item(recipe, tmp_path / "x.npz", tmp_path / "a")
    counts = recipe.infer(lambda images: torch.eye(10)[torch.zeros(len(images), dtype=torch.long)], item, None)
    assert recipe.metrics(counts) == {"images": 4.0, "accuracy": 0.75}
