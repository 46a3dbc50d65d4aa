"""What the results site shows of an observation: waterfalls with flags over them, and how much was flagged where and when."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Mask
from dlg_ml_tasks.recipes.rfi.pictures import AMPLITUDE_RANGE, log_amplitude
from dlg_ml_tasks.recipes.rfi.shards import Waterfalls
from dlg_ml_tasks.tasks.showing import Curves, Extent, Quantity, Show, write_waterfall
from dlg_ml_tasks.tasks.showing import Waterfalls as ShownWaterfalls

_BY_CHANNEL, _BY_TIME = "flagged-by-channel.csv", "flagged-by-time.csv"
_FLAGGED = Quantity(label="flagged", unit="%")

SHOWS: tuple[Show, ...] = (
    ShownWaterfalls(caption="Amplitude, in units of the noise, with the flags over it"),
    Curves(
        file=_BY_CHANNEL,
        caption="Flagged fraction of each channel, all baselines",
        x=Quantity(label="frequency", unit="MHz"),
        y=_FLAGGED,
    ),
    Curves(
        file=_BY_TIME,
        caption="Flagged fraction at each time, all baselines",
        x=Quantity(label="time since the first sample", unit="min"),
        y=_FLAGGED,
    ),
)


def write_layers(out: Path, name: str, observation: Waterfalls, flags: Mask, number: int) -> None:
    """Write waterfall `number` with its flags (bool (B, T, F)), the file's own and, where it is known, the truth."""
    minutes, mhz = _minutes(observation), observation.frequencies / 1e6
    low, high = AMPLITUDE_RANGE
    write_waterfall(
        out,
        name,
        log_amplitude(observation, number),
        title=f"Baseline {observation.baselines[number]}",
        x=Extent(label="frequency", unit="MHz", first=float(mhz[0]), last=float(mhz[-1])),
        y=Extent(label="time since the first sample", unit="min", first=float(minutes[0]), last=float(minutes[-1])),
        value=Extent(label="log10 |V| / noise", first=low, last=high),
        masks={what: mask[number] for what, mask in _masks(observation, flags).items()},
    )


def write_flagged_fractions(out: Path, observation: Waterfalls, flags: Mask) -> None:
    """Write the flagged fraction, in per cent, of each channel and at each time, as CSV with a column for each set of flags."""
    masks = _masks(observation, flags)
    by_channel = {name: 100 * mask.mean(axis=(0, 1)) for name, mask in masks.items()}
    by_time = {name: 100 * mask.mean(axis=(0, 2)) for name, mask in masks.items()}
    _write(out / _BY_CHANNEL, {"frequency": observation.frequencies / 1e6, **by_channel})
    _write(out / _BY_TIME, {"time": _minutes(observation), **by_time})


def _masks(observation: Waterfalls, flags: Mask) -> dict[str, Mask]:
    masks = {"flags after": flags, "flags before": observation.flags}
    return masks if observation.truth is None else {**masks, "truth": observation.truth.contaminated}


def _minutes(observation: Waterfalls) -> npt.NDArray[np.float64]:
    minutes: npt.NDArray[np.float64] = (observation.times - observation.times[0]) * 24 * 60
    return minutes


def _write(path: Path, columns: Mapping[str, npt.NDArray[np.float64]]) -> None:
    with replacing(path) as temporary:
        rows = np.column_stack(list(columns.values()))
        np.savetxt(temporary, rows, fmt="%.6g", delimiter=",", header=",".join(columns), comments="")
