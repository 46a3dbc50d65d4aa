"""Applying a trained network to one observation: probabilities, flags, counts and the files that carry them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dlg_ml_tasks.recipes.rfi.features import pad_edges
from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Mask
from dlg_ml_tasks.recipes.rfi.precision import convolution_precision
from dlg_ml_tasks.recipes.rfi.scoring import count_against_pipeline, count_against_truth
from dlg_ml_tasks.recipes.rfi.settings import WINDOW, RfiSettings
from dlg_ml_tasks.recipes.rfi.shards import Waterfalls, read_shard
from dlg_ml_tasks.recipes.rfi.showing import write_flagged_fractions, write_layers
from dlg_ml_tasks.recipes.rfi.uvh5 import write_flagged_copy
from dlg_ml_tasks.tasks.recipe import Counts, Item, Predict


@dataclass(frozen=True)
class Flagging:
    """What the network says of B waterfalls of T x F samples: `probability` float32 and `flags` bool, both (B, T, F)."""

    probability: npt.NDArray[np.float32]
    flags: Mask


def flag(predict: Predict, observation: Waterfalls, settings: RfiSettings) -> Flagging:
    """Flag samples whose probability reaches the threshold, and samples without a measurement."""
    probability = probabilities(predict, observation.whitened, settings)[
        :, : observation.times.size, : observation.frequencies.size
    ]
    return Flagging(probability, (probability >= settings.threshold) | ~observation.valid)


def probabilities(
    predict: Predict, whitened: npt.NDArray[np.float16], settings: RfiSettings
) -> npt.NDArray[np.float32]:
    """Probability of interference: (B, 2, P, Q) whitened visibilities to float32 (B, P', Q'), P' and Q' whole windows."""
    padded = pad_edges(whitened, WINDOW)
    waterfalls, _, times, channels = padded.shape
    grid = (waterfalls, 2, times // WINDOW[0], WINDOW[0], channels // WINDOW[1], WINDOW[1])
    windows = padded.reshape(grid).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 2, *WINDOW)
    found = []
    with torch.inference_mode(), convolution_precision(settings.precision, "cpu"):
        for first in range(0, len(windows), settings.batch):
            logits = predict(torch.from_numpy(windows[first : first + settings.batch]))
            found.append(torch.sigmoid(logits.float()).numpy())
    whole = np.concatenate(found).reshape(waterfalls, grid[2], grid[4], *WINDOW)
    probability: npt.NDArray[np.float32] = whole.transpose(0, 1, 3, 2, 4).reshape(waterfalls, times, channels)
    return probability


def infer(predict: Predict, item: Item, out: Path | None, settings: RfiSettings) -> Counts:
    """Flag one preprocessed observation, count, and write results into `out` unless it is None."""
    observation = read_shard(item.folder)
    started = time.process_time()
    flagging = flag(predict, observation, settings)
    seconds = time.process_time() - started
    counts: Counts = {"samples": float(flagging.flags.size), "cpu_seconds": seconds}
    if observation.truth is not None:
        counts |= count_against_truth(flagging.probability, flagging.flags, observation.valid, observation.truth)
    else:
        counts |= count_against_pipeline(flagging.flags, observation.valid, observation.flags)
    if out is not None:
        write_results(observation, flagging, item, out, settings)
    return counts


def write_results(observation: Waterfalls, flagging: Flagging, item: Item, out: Path, settings: RfiSettings) -> None:
    """Write ``<stem>.flags.npz``, what `showing.SHOWS` declares, pictures, and ``<stem>.flags.uvh5`` if the raw file is at hand."""
    from dlg_ml_tasks.recipes.rfi.pictures import draw_waterfall

    stem = Path(item.name).stem
    with replacing(out / f"{stem}.flags.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            flags=flagging.flags,
            probability=np.round(flagging.probability, 3).astype(np.float16),
            original_flags=observation.flags,
            threshold=np.float64(settings.threshold),
            frequencies_hz=observation.frequencies,
            times_jd=observation.times,
            baselines=np.array(observation.baselines),
        )
    if item.raw is not None:
        note = (
            f"Flags of cross-correlations replaced by dlg_ml_tasks.recipes.rfi (U-Net, threshold {settings.threshold:g}); "
            f"the original flags are in {stem}.flags.npz."
        )
        flags = dict(zip(observation.baselines, flagging.flags, strict=True))
        write_flagged_copy(item.raw, out / f"{stem}.flags.uvh5", flags, note)
    write_flagged_fractions(out, observation, flagging.flags)
    for number, baseline in enumerate(observation.baselines[: settings.pictures]):
        name = f"{stem}.{baseline.replace(' ', '.')}"
        draw_waterfall(out / f"{name}.png", observation, flagging.flags, number)
        write_layers(out, name, observation, flagging.flags, number)
