"""From visibilities to what the network sees: noise level per channel, and visibilities in its units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.observation import Complex, Mask

SIGMA_WINDOW = 65
"""Channels of the median filter over sigma(f): wider than any transmitter's line, narrower than the bandpass' shape."""

_RAYLEIGH_MEDIAN = 1.1774100225154747  # sqrt(2 ln 2): median of |z| when each component of z has unit variance


def has_data(visibilities: Complex) -> Mask:
    """Where there is a measurement: HERA's pipeline leaves zeros where it dropped one, and NaN means the same elsewhere."""
    valid: Mask = np.isfinite(visibilities) & (visibilities != 0)
    return valid


def noise_sigma(visibilities: Complex, valid: Mask) -> npt.NDArray[np.float32]:
    """Standard deviation of the noise in each real component, per channel.

    From (T, F) visibilities and their validity: the median over time of |V[f] - (V[f-1] + V[f+1]) / 2|, then a running median over
    channels. Differences in frequency, because those in time are moved by a strong sky on baselines beyond 15 m and by television
    that comes and goes; across channels both are smooth. Transmitters spoil single channels, which the running median drops.
    Channels without data take their neighbours' value. Returns float32 (F,), all positive. Raises ValueError if there is no noise.
    """
    from scipy.ndimage import median_filter

    differences = np.abs(visibilities[:, 1:-1] - 0.5 * (visibilities[:, :-2] + visibilities[:, 2:]))
    complete = valid[:, 1:-1] & valid[:, :-2] & valid[:, 2:]
    # The difference of a sample and the mean of two others has 3/2 of their variance.
    sigma = np.pad(masked_median(differences, complete) / (_RAYLEIGH_MEDIAN * np.sqrt(1.5)), 1)
    known = sigma > 0
    if not known.any():
        raise ValueError("no channel with noise in it")
    channels = np.arange(sigma.size)
    filled = np.interp(channels, channels[known], np.log(sigma[known]))
    # A bandpass falls by orders of magnitude towards its edges. Mirrored through the edge's value, its logarithm goes on falling,
    # and the median of a monotonous stretch is its middle; a plain mirror would put sigma wrong there by its slope.
    reach = min(SIGMA_WINDOW // 2, filled.size - 1)
    extended = np.pad(filled, reach, mode="reflect", reflect_type="odd")
    smooth = median_filter(extended, size=2 * reach + 1)[reach : reach + filled.size]
    found: npt.NDArray[np.float32] = np.exp(smooth).astype(np.float32)
    return found


def masked_median(values: npt.NDArray[np.float32], valid: Mask) -> npt.NDArray[np.float32]:
    """Median over the first axis of the valid values, the lower one of two middles; 0 where none is valid."""
    count = valid.sum(axis=0)
    if valid.all():
        middle_row = (len(values) - 1) // 2
        middle: npt.NDArray[np.float32] = np.partition(values, middle_row, axis=0)[middle_row]
        return middle
    ordered = np.sort(np.where(valid, values, np.inf), axis=0)
    middle = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    return np.where(count > 0, middle, 0).astype(np.float32)


def whiten(visibilities: Complex, valid: Mask, sigma: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Visibilities in units of the noise: float16 (2, T, F), real and imaginary part; 0 where there is no measurement."""
    limit = np.finfo(np.float16).max
    scaled = np.where(valid, visibilities, 0) / sigma
    return np.stack([scaled.real, scaled.imag]).clip(-limit, limit).astype(np.float16)


def pad_edges(array: npt.NDArray[np.float16], multiples: tuple[int, int]) -> npt.NDArray[np.float16]:
    """Repeat the last time and channel until the last two axes are multiples of `multiples`."""
    tail = [(0, -size % multiple) for size, multiple in zip(array.shape[-2:], multiples, strict=True)]
    if tail == [(0, 0), (0, 0)]:
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + tail, mode="edge")
