"""Scales with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps `low` … `high` to pixels `start` … `end`; `ticks` are round values between."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scale(
    values: Sequence[float], start: float, end: float, *, count: int = 5, whole: bool = False, tight: bool = False
) -> Scale:
    """A scale for some values: about `count` ticks, at whole numbers only if `whole`; `tight` ends at the values themselves."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        reach = abs(low) / 10 or 0.5
        low, high = low - reach, high + reach
    step = _round_step((high - low) / count)
    if whole:
        step = max(1.0, math.ceil(step))
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1))
    return Scale(low, high, start, end, ticks)


def tick_text(value: float) -> str:
    """A tick's label: short, with a real minus."""
    magnitude = abs(value)
    text = f"{value:.0e}" if magnitude and (magnitude >= 1e6 or magnitude < 1e-4) else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
