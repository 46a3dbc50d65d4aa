"""The training loop that train and retrain share: Lightning, seeded, checkpointed into the archive, resumable."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_summary import ModelSummary

from dlg_ml_tasks.tasks.errors import TrainingDiverged
from dlg_ml_tasks.tasks.execution import Context
from dlg_ml_tasks.tasks.parameters import TrainParams
from dlg_ml_tasks.tasks.recipe import Plan
from dlg_ml_tasks.tracking.files import download_artifact
from dlg_ml_tasks.tracking.runs import TaskRun, find_unfinished

_CHECKPOINTS = "checkpoints"
_LAST = "last.ckpt"
_JOB_NAME = "SLURM_JOB_NAME"

log = logging.getLogger(__name__)


def plan_from(defaults: Plan, params: TrainParams) -> Plan:
    """The recipe's plan with the task's parameters in the place of its defaults."""
    given = {
        name: getattr(params, name)
        for name in ("epochs", "steps_per_epoch", "batch_size", "learning_rate")
        if getattr(params, name) is not None
    }
    return replace(defaults, seed=params.seed, **given)


def fit(
    context: Context,
    params: TrainParams,
    plan: Plan,
    start: Callable[[], L.LightningModule],
    data: L.LightningDataModule,
) -> L.LightningModule:
    """Train the module that `start` builds, by the plan, and return it on the CPU.

    Same seed, plan and data on one CPU thread give bit-identical weights, also when the training was interrupted: a run with the
    same fingerprint that did not finish is taken up at its last checkpoint. Raises TrainingDiverged if the loss is not finite.
    """
    torch.set_num_threads(params.threads)
    L.seed_everything(plan.seed, workers=True, verbose=False)
    module = start()
    summary = context.work / "model_summary.txt"
    summary.write_text(str(ModelSummary(module, max_depth=2)))
    context.run.log_file(summary)
    checkpoint = _checkpoint(context)
    if checkpoint:
        log.info("resuming from the checkpoint of an interrupted run")
    with _alone():
        trainer = L.Trainer(
            max_epochs=plan.epochs,
            limit_train_batches=plan.steps_per_epoch,
            accelerator="auto",
            devices=1,
            deterministic=True,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Watch(context.run, plan), _Keep(context.run, context.work)],
        )
        # weights_only: a checkpoint comes from the archive, and a pickle could run anything.
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module.cpu().eval()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep Lightning from taking the training for a rank of the Slurm job that it runs in, as it does in jobs of any other name.

    It would refuse a job with `--ntasks`, resume from its own files, and requeue the whole job at a signal.
    """
    name = os.environ.get(_JOB_NAME)
    os.environ[_JOB_NAME] = "interactive"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        del os.environ[_JOB_NAME]
        if name is not None:
            os.environ[_JOB_NAME] = name


def _checkpoint(context: Context) -> Path | None:
    for run_id in find_unfinished(context.fingerprint):
        if run_id != context.run.run_id:
            found = download_artifact(run_id, f"{_CHECKPOINTS}/{_LAST}", context.work / "resumed")
            if found:
                context.run.set_tags({"dlg_ml.resumed_from": run_id})
                return found
    return None


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
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} at step {trainer.global_step} (epoch {trainer.current_epoch + 1}); lower learning_rate "
                f"(now {self._plan.learning_rate}) or look for NaN in the preprocessed data"
            )
        self._losses.append(loss)
        step = f"{batch_idx + 1}/{self._plan.steps_per_epoch}"
        self._run.progress(f"epoch {trainer.current_epoch + 1}/{self._plan.epochs}, step {step}, loss {loss:.4f}")

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        log.info("epoch %d/%d: train_loss %.4f", trainer.current_epoch + 1, self._plan.epochs, mean)
        self._run.log_metrics({"train_loss": mean}, step=trainer.current_epoch)


class _Keep(L.Callback):  # type: ignore[misc]
    """Puts Lightning's checkpoint into the archive after each epoch, so that a killed training loses at most one."""

    def __init__(self, run: TaskRun, work: Path) -> None:
        self._run = run
        self._file = work / _LAST

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.save_checkpoint(self._file)
        self._run.log_file(self._file, _CHECKPOINTS)
