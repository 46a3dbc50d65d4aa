"""The digits recipe with steps that take as long as a file says, so that a training can be caught in the middle."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lightning as L
import torch

from dlg_ml_tasks.recipes.digits import Digits
from dlg_ml_tasks.recipes.digits.training import DigitsModule
from dlg_ml_tasks.tasks import Plan


class SlowModule(DigitsModule):
    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        time.sleep(float(Path(os.environ["DLG_ML_TEST_PACE"]).read_text() or 0))
        return super().training_step(batch, batch_idx)


class Slow(Digits):
    def module(self, plan: Plan) -> L.LightningModule:
        return SlowModule(self.settings.channels, plan)
