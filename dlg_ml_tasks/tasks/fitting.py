"""The training loop that train and retrain share: Lightning, seeded, checkpointed into the archive, resumable."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.utilities.model_summary import ModelSummary

from dlg_ml_tasks.tasks.devices import divide, refuse_uneven, trainer_settings
from dlg_ml_tasks.tasks.errors import TaskCutShort, TaskError, TrainingDiverged
from dlg_ml_tasks.tasks.execution import Context
from dlg_ml_tasks.tasks.parameters import TrainParams
from dlg_ml_tasks.tasks.recipe import Plan
from dlg_ml_tasks.tasks.signals import no_time_limit_any_more
from dlg_ml_tasks.tracking.files import download_artifact
from dlg_ml_tasks.tracking.runs import TaskRun, find_unfinished
from dlg_ml_tasks.tracking.tags import EPOCHS

_CHECKPOINTS = "checkpoints"
_LAST = "last.ckpt"

log = logging.getLogger(__name__)


def plan_from(defaults: Plan, params: TrainParams) -> Plan:
    """The recipe's plan with the task's parameters in the place of its defaults.

    Raises BadInput if its batches cannot be divided among the devices.
    """
    given = {
        name: getattr(params, name)
        for name in ("epochs", "steps_per_epoch", "batch_size", "learning_rate")
        if getattr(params, name) is not None
    }
    plan = replace(defaults, seed=params.seed, **given)
    refuse_uneven(plan, params.devices)
    return plan


def fit(
    context: Context,
    params: TrainParams,
    plan: Plan,
    start: Callable[[], L.LightningModule],
    data: L.LightningDataModule,
) -> L.LightningModule | None:
    """Train the module that `start` builds, by the plan, and return it on the CPU; None in all processes of several but the first.

    Same seed, plan and data on one CPU thread give bit-identical weights, also when the training was interrupted: it is taken up at
    the last checkpoint of this run, or of a run with the same fingerprint that did not finish. Raises TrainingDiverged if the loss
    is not finite, TaskError if a time limit is near and no epoch was finished: going on would get no further.
    """
    torch.set_num_threads(params.threads)
    L.seed_everything(plan.seed, workers=True, verbose=False)
    module = start()
    summary = context.work / "model_summary.txt"
    summary.write_text(str(ModelSummary(module, max_depth=2)))
    context.run.log_file(summary)
    keep = _Keep(context.run, context.work)
    trainer = L.Trainer(
        **trainer_settings(context.rank),
        default_root_dir=context.work,  # where Lightning looks for checkpoints of its own
        max_epochs=plan.epochs,
        limit_train_batches=plan.steps_per_epoch,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Signals(), keep, _Watch(context.run, plan)],
    )
    checkpoint = _checkpoint(context)
    # Lightning looks for srun wherever it can be found; whether it is used is the executor's business.
    warnings.filterwarnings("ignore", "The `srun` command is available", PossibleUserWarning)
    try:
        # weights_only: a checkpoint comes from the archive, and a pickle could run anything.
        trainer.fit(module, datamodule=divide(data, context.rank), ckpt_path=checkpoint, weights_only=True)
    except TaskCutShort:
        if context.rank.is_first and not keep.kept:
            raise TaskError(
                f"no epoch was finished before the time limit, so going on later would get no further; give more time, or lower "
                f"steps_per_epoch (now {plan.steps_per_epoch}): a checkpoint is kept after each epoch"
            ) from None
        raise
    return module.cpu().eval() if context.rank.is_first else None


def _checkpoint(context: Context) -> Path | None:
    for run_id in find_unfinished(context.fingerprint):
        if run_id == context.run.run_id and not context.taken_up:
            continue
        found = download_artifact(run_id, f"{_CHECKPOINTS}/{_LAST}", context.work / "resumed")
        if found:
            log.info("resuming from the checkpoint of an interrupted run")
            if run_id != context.run.run_id:
                context.run.set_tags({"dlg_ml.resumed_from": run_id})
            return found
    return None


class _Signals(L.Callback):  # type: ignore[misc]
    """Keeps the task's own answers to signals.

    Lightning's answer to SIGTERM tells the other processes first, and waits for them. Once trained, what is left is soon done.
    """

    def __init__(self) -> None:
        self._own = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._own)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        no_time_limit_any_more()


class _Watch(L.Callback):  # type: ignore[misc]
    """Reports loss and progress, and stops a training whose loss is not finite."""

    def __init__(self, run: TaskRun, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._losses: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        # In all processes but the first the gradients carry it to the first, whose loss is no number in the next step.
        if trainer.is_global_zero and not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} at step {trainer.global_step} (epoch {trainer.current_epoch + 1}); lower learning_rate "
                f"(now {self._plan.learning_rate}) or look for NaN in the preprocessed data"
            )
        self._losses.append(loss)
        step = f"{batch_idx + 1}/{self._plan.steps_per_epoch}"
        self._run.progress(f"epoch {trainer.current_epoch + 1}/{self._plan.epochs}, step {step}, loss {loss:.4f}")

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        mean = sum(self._losses) / len(self._losses)
        if trainer.world_size > 1:
            mean = float(
                trainer.strategy.reduce(torch.tensor(mean, device=trainer.strategy.root_device), reduce_op="mean")
            )
        self._losses.clear()
        if trainer.is_global_zero:
            log.info("epoch %d/%d: train_loss %.4f", trainer.current_epoch + 1, self._plan.epochs, mean)
        self._run.log_metrics({"train_loss": mean, EPOCHS: trainer.current_epoch + 1}, step=trainer.current_epoch)


class _Keep(L.Callback):  # type: ignore[misc]
    """Puts Lightning's checkpoint into the archive after each epoch, so that a killed training loses at most one.

    `kept` counts those of this process.
    """

    def __init__(self, run: TaskRun, work: Path) -> None:
        self._run = run
        self._file = work / _LAST
        self.kept = 0

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.save_checkpoint(self._file, weights_only=False)  # in all processes: they wait for each other
        self._run.log_file(self._file, _CHECKPOINTS)
        self.kept += 1
