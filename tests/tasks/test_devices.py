"""Training in several processes: each batch is divided, the model is that of one process, and all end together."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dlg_ml_tasks.recipes.digits import Digits
from dlg_ml_tasks.recipes.digits.training import DigitsData, DigitsModule
from dlg_ml_tasks.tasks import BadInput, ExecutorFailed, Plan, load_raw, preprocess, train
from dlg_ml_tasks.tasks.devices import divide
from dlg_ml_tasks.tasks.rank import Rank, this_rank
from dlg_ml_tasks.tracking import Reference

PLAN = Plan(epochs=2, steps_per_epoch=3, batch_size=8, learning_rate=1e-3)
QUICK = {"epochs": 3, "steps_per_epoch": 10}


class Mortal(Digits):
    """The digits recipe, whose second process dies in its second epoch."""

    def module(self, plan: Plan) -> L.LightningModule:
        return MortalModule(self.settings.channels, plan)


class MortalModule(DigitsModule):
    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and os.environ["LOCAL_RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


def _data(recipe: str) -> Reference:
    raw = load_raw.run({"sources": "sample:night-A", "recipe": "digits"})
    return preprocess.run({"recipe": recipe}, {"raw": [raw.reference]}).reference


def _labels(rank: Rank, epoch: int) -> list[list[int]]:
    data = divide(DigitsData(np.zeros((40, 1, 8, 8), np.float32), np.arange(40), PLAN), rank)
    loader: Any = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [labels.tolist() for _, labels in loader]


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_shares_of_all_processes_make_up_the_batch_of_one(epoch: int) -> None:
    whole = _labels(Rank(), epoch)
    shares = [_labels(Rank(number, 4), epoch) for number in range(4)]
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(label for share in shares for label in share[step])
        assert {len(share[step]) for share in shares} == {2}


def test_each_epoch_has_batches_of_its_own() -> None:
    assert _labels(Rank(), 0) != _labels(Rank(), 1)


def test_lightning_asks_for_new_batches_in_each_epoch() -> None:
    seen: list[list[int]] = []

    class Watching(DigitsModule):
        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
            seen.append(batch[1].tolist())
            return super().training_step(batch, batch_idx)

    images, labels = np.zeros((40, 1, 8, 8), np.float32), np.arange(40) % 10
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Watching(2, PLAN), datamodule=DigitsData(images, labels, PLAN))
    assert len(seen) == PLAN.epochs * PLAN.steps_per_epoch
    assert seen[: PLAN.steps_per_epoch] != seen[PLAN.steps_per_epoch :]


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_done() -> None:
    with pytest.raises(BadInput, match="batch_size=33 cannot be divided evenly among devices=2"):
        train.run({"recipe": "digits", "model_name": "m", "batch_size": 33, "devices": 2}, {"data": [_ANY]})


def test_data_without_a_sampler_is_refused() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(8))

    class Data(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader[int]:
            return DataLoader(Stream(), 4)

    with pytest.raises(BadInput, match="one device only"):
        divide(Data(), Rank(0, 2)).train_dataloader()


def test_a_batch_that_the_recipe_made_too_small_is_refused() -> None:
    class Data(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(torch.arange(5)), 4)

    with pytest.raises(BadInput, match="a batch of 1"):
        list(divide(Data(), Rank(0, 2)).train_dataloader())


def test_a_process_that_was_not_started_as_one_of_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert this_rank(2) == Rank(0, 2)
    assert this_rank(1) == Rank()
    with pytest.raises(BadInput, match="devices=4, but 2 processes"):
        this_rank(4)


@pytest.mark.integration
def test_two_processes_of_this_machine_learn_what_one_does(tracking: str) -> None:
    data = _data("digits")
    one = train.run({**QUICK, "recipe": "digits", "model_name": "one-here"}, {"data": [data]})
    two = train.run({**QUICK, "recipe": "digits", "model_name": "two-here", "devices": 2}, {"data": [data]})
    losses = [
        [metric.value for metric in MlflowClient().get_metric_history(run, "train_loss")]
        for run in (one.run_id, two.run_id)
    ]
    assert len(losses[0]) == QUICK["epochs"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert two.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.02)
    assert len(MlflowClient().search_model_versions("name = 'two-here'")) == 1


@pytest.mark.integration
def test_a_process_that_dies_ends_the_training_and_is_named(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))))
    recipe, runs = "test_devices:Mortal", list[str]()
    params = {**QUICK, "recipe": recipe, "model_name": "mortal", "devices": 2}
    with pytest.raises(ExecutorFailed, match=r"process 2 of 2 was killed by SIGKILL"):
        train.run(params, {"data": [_data(recipe)]}, on_start=runs.append)
    run = MlflowClient().get_run(runs[0])
    assert run.info.status in ("FAILED", "KILLED")
    assert run.data.metrics["epochs"] == 1


_ANY = Reference(kind="files", uri=f"runs:/{'0' * 32}/data", run_id="0" * 32, digest="a" * 64, fingerprint="f" * 64)
