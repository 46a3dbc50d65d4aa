"""Batches that depend on (seed, epoch) alone, for recipes whose training data is a plain indexable data set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from dlg_ml_tasks.tasks import Plan


class SeededBatches(Sampler[list[int]]):
    """Batches of indices drawn without replacement from (seed, epoch) alone, so that a resumed training sees the same ones."""

    def __init__(self, size: int, plan: Plan) -> None:
        self._size = size
        self._plan = plan
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    @property
    def sampler(self) -> SeededBatches:
        """Where Lightning looks for `set_epoch`: it calls that of a batch sampler's sampler only."""
        return self

    def __len__(self) -> int:
        return self._plan.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._plan.seed, self._epoch])
        order = rng.permutation(self._size)
        for step in range(self._plan.steps_per_epoch):
            start = step * self._plan.batch_size
            yield [int(order[i % self._size]) for i in range(start, start + self._plan.batch_size)]
