"""Training examples: random pieces of labelled waterfalls, mirrored at random, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from dlg_ml_tasks.recipes.rfi.settings import CROP
from dlg_ml_tasks.recipes.rfi.shards import MULTIPLE, Waterfalls
from dlg_ml_tasks.tasks.errors import BadInput


class Crop(NamedTuple):
    """Which piece: waterfall number, first time and channel, and whether time and frequency are mirrored."""

    waterfall: int
    time: int
    channel: int
    mirror_time: bool
    mirror_frequency: bool


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Pieces of equal size: whitened float16 (2, T, F) and truth float32 (T, F)."""

    def __init__(self, observations: Sequence[Waterfalls]) -> None:
        self.whitened: list[npt.NDArray[np.float16]] = []
        self.truth: list[npt.NDArray[np.bool_]] = []
        if not observations:
            raise BadInput("no observation to train on; give at least one with truth that is not held back")
        for observation in observations:
            if observation.truth is None:
                raise BadInput(f"{observation.name}: has no truth to train on; give simulated or labelled observations")
            self.whitened += list(observation.whitened)
            self.truth += list(observation.truth.contaminated)
        times, channels = np.min([truth.shape for truth in self.truth], axis=0)
        # Whole multiples of the network's reduction, inside the unpadded part.
        self.size = tuple(
            min(int(n), most) // MULTIPLE * MULTIPLE for n, most in zip((times, channels), CROP, strict=True)
        )
        if 0 in self.size:
            raise BadInput(
                f"observations of {times} times x {channels} channels are too small; at least 16 x 16 samples are needed"
            )

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, crop: Crop) -> tuple[Tensor, Tensor]:
        part = np.s_[..., crop.time : crop.time + self.size[0], crop.channel : crop.channel + self.size[1]]
        steps = np.s_[..., :: -1 if crop.mirror_time else 1, :: -1 if crop.mirror_frequency else 1]
        whitened = self.whitened[crop.waterfall][part][steps]
        truth = self.truth[crop.waterfall][part][steps].astype(np.float32)
        return torch.from_numpy(whitened.copy()), torch.from_numpy(truth.copy())


class CropSampler(Sampler[Crop]):
    """`length` crops per epoch, each waterfall equally often; with replay, every other crop is of an earlier waterfall.

    Waterfalls 0 .. new - 1 of the dataset are new, the others are replayed. The crops depend on (seed, epoch) only.
    """

    def __init__(self, crops: Crops, new: int, length: int, seed: int) -> None:
        self.crops, self.new, self.length, self.seed = crops, new, length, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, also after a resumption."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Crop]:
        rng = np.random.default_rng([self.seed, self.epoch])
        new = _rounds(rng, np.arange(self.new))
        old = _rounds(rng, np.arange(self.new, len(self.crops)))
        has_replay = len(self.crops) > self.new
        for number in range(self.length):
            waterfall = next(old if has_replay and number % 2 else new)
            shape = self.crops.truth[waterfall].shape
            time, channel = (int(rng.integers(n - size + 1)) for n, size in zip(shape, self.crops.size, strict=True))
            yield Crop(waterfall, time, channel, bool(rng.integers(2)), bool(rng.integers(2)))


def _rounds(rng: np.random.Generator, items: npt.NDArray[np.int64]) -> Iterator[int]:
    """Endless shuffled passes over the items."""
    while items.size:
        yield from map(int, rng.permutation(items))
