"""How the network learns: loss, optimiser and the stream of crops, as plain Lightning classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from dlg_ml_tasks.recipes.rfi.crops import Crop, Crops, CropSampler
from dlg_ml_tasks.recipes.rfi.network import UNet
from dlg_ml_tasks.recipes.rfi.precision import convolution_precision
from dlg_ml_tasks.recipes.rfi.shards import Waterfalls
from dlg_ml_tasks.tasks.recipe import Plan

WARM_UP_STEPS = 50


class RfiModule(L.LightningModule):  # type: ignore[misc]
    """Binary cross-entropy per sample; AdamW with a linear warm-up and a cosine to zero over the whole plan."""

    def __init__(self, plan: Plan, precision: str = "auto") -> None:
        super().__init__()
        self.plan = plan
        self.precision = precision
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.network = UNet()

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_number: int) -> Tensor:
        """Mean loss of a batch of crops."""
        whitened, truth = batch
        with convolution_precision(self.precision, whitened.device.type):
            logits = self.network(whitened)
        loss = F.binary_cross_entropy_with_logits(logits.float(), truth)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """The learning rate changes with every optimiser step."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.plan.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _learning_rate_factor(self, step: int) -> float:
        steps = self.plan.epochs * self.plan.steps_per_epoch
        warm_up = min(WARM_UP_STEPS, max(1, steps // 10))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))


class RfiData(L.LightningDataModule):  # type: ignore[misc]
    """Crops of new observations, half and half with crops of replayed ones if there are any."""

    def __init__(self, new: Sequence[Waterfalls], replay: Sequence[Waterfalls], plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.crops = Crops([*new, *replay])
        self.new = sum(len(observation.baselines) for observation in new)

    def train_dataloader(self) -> DataLoader[Crop]:
        """Exactly `steps_per_epoch` batches an epoch."""
        plan = self.plan
        sampler = CropSampler(self.crops, self.new, plan.steps_per_epoch * plan.batch_size, plan.seed)
        return DataLoader(self.crops, plan.batch_size, sampler=sampler, drop_last=True)  # type: ignore[arg-type]
