"""Pictures of waterfalls: the data, what is known to be interference, and what was flagged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Mask
from dlg_ml_tasks.recipes.rfi.shards import Waterfalls

AMPLITUDE_RANGE = (-0.5, 2.0)
"""What the colours span: from the weakest samples to 100 times the noise, of which brighter ones are hard to tell anyway."""


def log_amplitude(observation: Waterfalls, number: int) -> npt.NDArray[np.float32]:
    """Decimal logarithm of waterfall `number`'s amplitude in units of the noise, float32 (T, F)."""
    real, imaginary = observation.whitened[number, :, : observation.times.size, : observation.frequencies.size].astype(
        np.float32
    )
    amplitude: npt.NDArray[np.float32] = np.log10(np.hypot(real, imaginary) + 0.1)
    return amplitude


def draw_waterfall(path: Path, observation: Waterfalls, flags: Mask, number: int) -> None:
    """Draw waterfall `number` of the observation as PNG: log amplitude, truth (or the pipeline's flags), flags (bool (B, T, F))."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours = flags[number]
    reference = observation.flags[number] if observation.truth is None else observation.truth.contaminated[number]
    reference_name = "pipeline flags" if observation.truth is None else "truth"
    amplitude = log_amplitude(observation, number)
    low, high = AMPLITUDE_RANGE

    minutes = (observation.times - observation.times[0]) * 24 * 60
    mhz = observation.frequencies / 1e6
    extent = (mhz[0], mhz[-1], minutes[-1], 0.0)
    # A Figure of its own, not pyplot, whose state is shared between threads.
    figure = Figure(figsize=(9, 7), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    image = panels[0].imshow(amplitude, aspect="auto", extent=extent, interpolation="nearest", vmin=low, vmax=high)
    figure.colorbar(image, ax=panels[0], label=r"$\log_{10}\,|V|/\sigma$", pad=0.01)
    for panel, mask, name in ((panels[1], reference, reference_name), (panels[2], ours, "our flags")):
        panel.imshow(mask, aspect="auto", extent=extent, interpolation="nearest", cmap="Greys", vmin=0, vmax=1)
        panel.set_title(f"{name}: {mask.mean():.1%} of the samples", fontsize=9)
    for panel in panels:
        panel.set_ylabel("minutes")
    panels[2].set_xlabel("MHz")
    title = f"{observation.name}  {observation.baselines[number]}"
    if observation.truth is not None:
        title += f"  F1 {_f1(ours, reference):.2f}"
    panels[0].set_title(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _f1(flags: Mask, truth: Mask) -> float:
    both, either = int((flags & truth).sum()), int(flags.sum() + truth.sum())
    return 2 * both / either if either else 1.0
