"""A complete recipe outside dlg_ml_tasks: does a time series hold a pulse? (docs/recipes.md walks through it.)"""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlg_ml_tasks.recipes.batches import SeededBatches
from dlg_ml_tasks.tasks import BadInput, Picture, Plan, Recipe, RecipeSettings

SAMPLES = 128


class PulseSettings(RecipeSettings):
    """What a user of the recipe may set."""

    hidden: int = Field(32, ge=1, description="Units of the hidden layer.")


class Pulses(Recipe):
    """Raw files are `*.series.npy`, float32 of shape (n, 128); the truth, if known, lies beside as `*.truth.npy`, bool (n,)."""

    Settings = PulseSettings
    raw_glob = "*.series.npy"
    shows = (Picture(files="pulses.png", caption="The first series in which a pulse was found"),)
    metric = "accuracy"
    training = Plan(epochs=3, steps_per_epoch=50, batch_size=64, learning_rate=3e-3)
    retraining = Plan(epochs=2, steps_per_epoch=50, batch_size=64, learning_rate=1e-3)

    def preprocess(self, raw, out):
        try:
            series = np.load(raw, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"{raw.name} is no readable NumPy file: {error}") from error
        if series.ndim != 2 or series.shape[1] != SAMPLES:
            raise BadInput(f"{raw.name}: expected the shape (n, {SAMPLES}), got {series.shape}")
        level = np.median(series, axis=1, keepdims=True)
        scatter = 1.4826 * np.median(np.abs(series - level), axis=1, keepdims=True)
        np.save(out / "series.npy", ((series - level) / scatter).astype(np.float32))
        truth = raw.with_name(raw.name.replace(".series.", ".truth."))
        if truth.exists():
            np.save(out / "truth.npy", np.load(truth, allow_pickle=False))

    def is_labelled(self, item):
        return (item.folder / "truth.npy").exists()

    def data(self, items, replay, plan):
        series = np.concatenate([np.load(item.folder / "series.npy") for item in (*items, *replay)])
        truth = np.concatenate([np.load(item.folder / "truth.npy") for item in (*items, *replay)])
        return PulseData(TensorDataset(torch.from_numpy(series), torch.from_numpy(truth.astype(np.float32))), plan)

    def module(self, plan):
        return PulseModule(self.settings.hidden, plan)

    def example_input(self):
        return torch.zeros(2, SAMPLES)

    def infer(self, predict, item, out):
        series = np.load(item.folder / "series.npy")
        with torch.no_grad():
            found = predict(torch.from_numpy(series))[:, 0].numpy() > 0
        if out is not None:
            np.save(out / "pulses.npy", found)
            draw(series, found, out / "pulses.png")
        if not self.is_labelled(item):
            return {"series": len(series)}
        truth = np.load(item.folder / "truth.npy")
        return {"series": len(series), "correct": int((found == truth).sum())}

    def metrics(self, counts):
        if "correct" not in counts:
            return {}
        return {"accuracy": counts["correct"] / counts["series"]}


class PulseData(L.LightningDataModule):
    def __init__(self, dataset, plan):
        super().__init__()
        self.dataset, self.plan = dataset, plan

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_sampler=SeededBatches(len(self.dataset), self.plan))


class PulseModule(L.LightningModule):
    def __init__(self, hidden, plan):
        super().__init__()
        self.plan = plan
        self.network = nn.Sequential(nn.Linear(SAMPLES, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def training_step(self, batch, batch_idx):
        series, truth = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(series)[:, 0], truth)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.plan.learning_rate)


def draw(series: np.ndarray, found: np.ndarray, target: Path) -> None:
    """A PNG of the first series in which a pulse was found."""
    figure = Figure(figsize=(6, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot(series[int(np.argmax(found))])
    axes.set_xlabel("sample")
    axes.set_ylabel("signal / noise")
    figure.savefig(target)
