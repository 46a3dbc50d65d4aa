"""An interferometric observation as waterfalls: one time x channel array of visibilities per baseline and polarisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Complex: TypeAlias = "npt.NDArray[np.complex64]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True)
class Baseline:
    """Two antennas and a polarisation, as in the file (``53-54 xx``)."""

    antenna1: int
    antenna2: int
    polarisation: str

    def __str__(self) -> str:
        return f"{self.antenna1}-{self.antenna2} {self.polarisation}"

    @classmethod
    def parse(cls, text: str) -> Baseline:
        """Read what `str` wrote."""
        pair, polarisation = text.split(" ")
        antenna1, antenna2 = pair.split("-")
        return cls(int(antenna1), int(antenna2), polarisation)


@dataclass(frozen=True)
class Observation:
    """Cross-correlations of one file. B waterfalls of T times x F channels.

    `visibilities` complex64 (B, T, F) in the file's units; `flags` bool (B, T, F), the file's own;
    `times` float64 (T,) Julian dates; `frequencies` float64 (F,) in Hz.
    """

    baselines: tuple[Baseline, ...]
    visibilities: Complex
    flags: Mask
    times: npt.NDArray[np.float64]
    frequencies: npt.NDArray[np.float64]
