"""Training on several devices: what Lightning is told of the processes, and each one's share of a batch.

Every process gets its part of every batch, and gradients are averaged: a step on n devices is the step of the whole batch, up to
rounding (and to batch statistics, which on CPUs are those of the part).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from torch.utils.data import DataLoader, IterableDataset, Sampler

from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.rank import Rank
from dlg_ml_tasks.tasks.recipe import Plan


def trainer_settings(rank: Rank) -> dict[str, Any]:
    """What Lightning's Trainer is told of the processes. Raises BadInput if this machine has GPUs, and too few.

    The cluster's environment is named, because Lightning would take any task inside a Slurm job for a training by srun.
    """
    if rank.of == 1:
        return {"accelerator": "auto", "devices": 1, "plugins": [LightningEnvironment()]}
    here = rank.of // rank.nodes
    gpus = torch.cuda.device_count()
    if 0 < gpus < here:
        raise BadInput(
            f"{here} devices on this machine, which has {gpus} GPUs; lower devices, or set CUDA_VISIBLE_DEVICES to nothing"
        )
    environment = SLURMEnvironment(auto_requeue=False) if rank.started_by == "slurm" else LightningEnvironment()
    return {
        "accelerator": "gpu" if gpus else "cpu",
        "devices": here,
        "num_nodes": rank.nodes,
        "strategy": "ddp",
        "plugins": [environment],
        "use_distributed_sampler": False,  # it knows no batch samplers; `divide` does it for both
        "sync_batchnorm": gpus > 0,
    }


def refuse_uneven(plan: Plan, devices: int) -> None:
    """Raise BadInput if a batch cannot be divided evenly: the mean over the devices would not be that of the batch."""
    if plan.batch_size % devices:
        raise BadInput(f"batch_size={plan.batch_size} cannot be divided evenly among devices={devices}")


def divide(data: L.LightningDataModule, rank: Rank) -> L.LightningDataModule:
    """The same data, with the batches reduced to this process's share."""
    whole: Callable[[], Any] = data.train_dataloader
    if rank.of > 1:
        data.train_dataloader = lambda: _share(whole(), rank)
    return data


def _share(loader: Any, rank: Rank) -> DataLoader[Any]:
    if (
        not isinstance(loader, DataLoader)
        or isinstance(loader.dataset, IterableDataset)
        or loader.batch_sampler is None
    ):
        raise BadInput("this recipe trains on one device only: its train_dataloader gives no DataLoader with a sampler")
    return DataLoader(
        loader.dataset,
        batch_sampler=_Share(loader.batch_sampler, rank),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


class _Share(Sampler[list[Any]]):
    """Every n-th example of each batch."""

    def __init__(self, batches: Any, rank: Rank) -> None:
        self._batches = batches
        self._rank = rank

    def set_epoch(self, epoch: int) -> None:
        """Pass on to the recipe's sampler what Lightning says before each epoch."""
        for each in (self._batches, getattr(self._batches, "sampler", None)):
            if callable(set_epoch := getattr(each, "set_epoch", None)):
                set_epoch(epoch)

    @property
    def sampler(self) -> _Share:
        """Where Lightning looks for `set_epoch`."""
        return self

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            if len(batch) % self._rank.of:
                raise BadInput(
                    f"the recipe's data gave a batch of {len(batch)}, which {self._rank.of} devices cannot share evenly"
                )
            yield batch[self._rank.number :: self._rank.of]
