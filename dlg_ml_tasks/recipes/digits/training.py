"""Network, loss and data order of the digits recipe."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlg_ml_tasks.recipes.batches import SeededBatches
from dlg_ml_tasks.tasks import Plan


class DigitsData(L.LightningDataModule):  # type: ignore[misc]
    """Images (n, 1, 8, 8) float32 in 0..1 and labels (n,) int64."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, plan: Plan) -> None:
        super().__init__()
        self._dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
        self._plan = plan

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Batches in the order of `SeededBatches`."""
        return DataLoader(self._dataset, batch_sampler=SeededBatches(len(self._dataset), self._plan))


class DigitsModule(L.LightningModule):  # type: ignore[misc]
    """Two convolutions and a linear layer with cross-entropy."""

    def __init__(self, channels: int, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * channels * 16, 10),
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Cross-entropy of one batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam at the plan's learning rate."""
        return torch.optim.Adam(self.network.parameters(), lr=self._plan.learning_rate)
