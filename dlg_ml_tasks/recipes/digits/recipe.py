"""The digits recipe: raw files are npz archives of 8 x 8 images, with labels inside or not."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from dlg_ml_tasks.tasks import BadInput, Counts, Item, Picture, Plan, Predict, Recipe, RecipeSettings, Table

if TYPE_CHECKING:
    import lightning as L
    import torch

_FILES_PER_NIGHT = 6
_BRIGHTEST = 16
_SHARD = "digits.safetensors"


class DigitsSettings(RecipeSettings):
    """Settings of the digits recipe."""

    channels: int = Field(8, ge=1, le=64, description="Channels of the first convolution.")


class Digits(Recipe):
    """Classifies 8 x 8 images of digits. `night-A` holds them as they are, `night-B` with inverted contrast."""

    Settings = DigitsSettings
    raw_glob = "*.npz"
    shows = (
        Picture(
            files="digits.png", caption="The first images, each with the digit that was predicted; wrong ones in red"
        ),
        Table(files="predictions.csv", caption="Predicted digit of each image, and its label where there is one"),
    )
    metric = "accuracy"
    training: ClassVar[Plan] = Plan(epochs=3, steps_per_epoch=60, batch_size=32, learning_rate=1e-2)
    retraining: ClassVar[Plan] = Plan(epochs=2, steps_per_epoch=60, batch_size=32, learning_rate=5e-3)

    def sample(self, name: str, out: Path, seed: int) -> None:
        """Write one night: six files of scikit-learn's digits, the fifth held back, the last without labels."""
        from sklearn.datasets import load_digits

        if name not in ("night-A", "night-B"):
            raise BadInput(f"recipe digits has the sample data 'night-A' and 'night-B', not {name!r}")
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(images))
        # The two nights share no image.
        own = order[(0 if name == "night-A" else 1) :: 2]
        images = images[own].reshape(-1, 8, 8).astype(np.uint8)
        if name == "night-B":
            images = _BRIGHTEST - images
        roles = ["train"] * 4 + ["heldback", "unlabelled"]
        for index, part in enumerate(np.array_split(np.arange(len(own)), _FILES_PER_NIGHT)):
            arrays = {"images": images[part]} | ({} if roles[index] == "unlabelled" else {"labels": labels[own][part]})
            np.savez(out / f"digits.{name[-1]}.{index}.{roles[index]}.npz", **arrays)

    def preprocess(self, raw: Path, out: Path) -> None:
        """Scale images to 0..1 (float32, (n, 1, 8, 8)) and keep the labels (int64, (n,)) if there are any."""
        from safetensors.numpy import save_file

        try:
            with np.load(raw, allow_pickle=False) as file:
                images, labels = file["images"], file.get("labels")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BadInput(f"{raw.name} is no readable archive of digits: {error}") from error
        if images.ndim != 3 or images.shape[1:] != (8, 8):
            raise BadInput(f"{raw.name}: images must have the shape (n, 8, 8), not {images.shape}")
        tensors = {"images": (images[:, None] / _BRIGHTEST).astype(np.float32)}
        if labels is not None:
            tensors["labels"] = labels.astype(np.int64)
        save_file(tensors, out / _SHARD)

    def is_labelled(self, item: Item) -> bool:
        """Whether the shard holds labels."""
        return "labels" in _load(item)

    def data(self, items: Sequence[Item], replay: Sequence[Item], plan: Plan) -> L.LightningDataModule:
        """All images of the items and the replayed ones, in an order drawn anew for each epoch."""
        from dlg_ml_tasks.recipes.digits.training import DigitsData

        shards = [_load(item) for item in (*items, *replay)]
        return DigitsData(
            np.concatenate([shard["images"] for shard in shards]),
            np.concatenate([shard["labels"] for shard in shards]),
            plan,
        )

    def module(self, plan: Plan) -> L.LightningModule:
        """A small convolutional classifier."""
        from dlg_ml_tasks.recipes.digits.training import DigitsModule

        return DigitsModule(self.settings.channels, plan)

    def example_input(self) -> torch.Tensor:
        """Two blank images."""
        import torch

        return torch.zeros(2, 1, 8, 8)

    def infer(self, predict: Predict, item: Item, out: Path | None) -> Counts:
        """Predict digits; write `predictions.csv` and a picture of the first 32 images."""
        import torch

        from dlg_ml_tasks.recipes.digits.pictures import draw

        shard = _load(item)
        with torch.no_grad():
            predicted = predict(torch.from_numpy(shard["images"])).argmax(1).numpy()
        truth = shard.get("labels")
        if out is not None:
            columns = {"index": np.arange(len(predicted)), "predicted": predicted} | (
                {} if truth is None else {"label": truth}
            )
            np.savetxt(
                out / "predictions.csv",
                np.column_stack(list(columns.values())),
                fmt="%d",
                delimiter=",",
                header=",".join(columns),
                comments="",
            )
            draw(shard["images"], predicted, truth, out / "digits.png")
        counts: Counts = {"images": len(predicted)}
        if truth is not None:
            counts |= {"labelled": len(truth), "correct": int((predicted == truth).sum())}
        return counts

    def metrics(self, counts: Counts) -> dict[str, float]:
        """Accuracy: the fraction of labelled images whose digit was predicted."""
        found = {"images": float(counts["images"])}
        if "labelled" in counts:
            found["accuracy"] = float(counts["correct"] / counts["labelled"])
        return found


def _load(item: Item) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    loaded: dict[str, np.ndarray] = load_file(item.folder / _SHARD)
    return loaded
