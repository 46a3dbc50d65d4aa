"""A picture of what the digits recipe predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

_COLUMNS, _ROWS = 8, 4


def draw(images: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None, target: Path) -> None:
    """Write a PNG of the first 32 images (n, 1, 8, 8), each titled with its predicted digit, wrong ones in red."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    for index, axes in enumerate(figure.subplots(_ROWS, _COLUMNS).flat):
        axes.set_axis_off()
        if index >= len(images):
            continue
        axes.imshow(images[index, 0], cmap="gray_r", vmin=0, vmax=1)
        wrong = truth is not None and predicted[index] != truth[index]
        text = f"{predicted[index]} (is {truth[index]})" if wrong and truth is not None else f"{predicted[index]}"
        axes.set_title(text, fontsize=9, color="tab:red" if wrong else "black")
    figure.savefig(target, dpi=80)
