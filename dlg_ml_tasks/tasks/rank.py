"""Which of the processes of a training this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dlg_ml_tasks.tasks.errors import BadInput


@dataclass(frozen=True)
class Rank:
    """One of the processes of a training: its number, of how many, on how many nodes, and what started them."""

    number: int = 0
    of: int = 1
    nodes: int = 1
    started_by: Literal["task", "slurm"] = "task"

    @property
    def is_first(self) -> bool:
        """Whether this process tracks, keeps checkpoints, scores and registers."""
        return self.number == 0


ONLY = Rank()
"""The process of a training on one device."""


def this_rank(devices: int) -> Rank:
    """Which process of a training on so many devices this is. Raises BadInput if it was not started as one of so many."""
    if devices == 1:
        return ONLY
    if "LOCAL_RANK" in os.environ:
        rank = Rank(int(os.environ["LOCAL_RANK"]), int(os.environ.get("WORLD_SIZE", "0")))
    elif "SLURM_STEP_ID" in os.environ:
        nodes, number = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_PROCID"])
        rank = Rank(number, int(os.environ["SLURM_NTASKS"]), nodes, "slurm")
    else:
        rank = ONLY
    if rank.of != devices:
        raise BadInput(f"devices={devices}, but {rank.of} processes were started")
    return rank
