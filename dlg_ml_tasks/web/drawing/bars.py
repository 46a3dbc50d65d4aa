"""Stacked bars, one a day: how much was done when."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.axes import scale, tick_text
from dlg_ml_tasks.web.pages.formatting import day

_WIDTH, _HEIGHT = 720, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 26
_KINDS = ("finished", "failed", "other")


class DayCount(BaseModel):
    """Task runs that began on one day; `day` is its beginning in milliseconds since 1970 (UTC)."""

    day: int
    finished: int
    failed: int
    other: int

    @property
    def total(self) -> int:
        return self.finished + self.failed + self.other


def daily_bars(days: Sequence[DayCount]) -> Markup:
    """The days as an SVG element."""
    up = scale(
        [0.0, max((each.total for each in days), default=0) or 1.0], _HEIGHT - _BOTTOM, _TOP, count=3, whole=True
    )
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    parts = [
        f'<path class="grid" d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="tick-y" x="{_LEFT - 8}" y="{up(y) + 4:.1f}">{tick_text(y)}</text>'
        for y in up.ticks
    ]
    for number, each in enumerate(days):
        left, below = _LEFT + number * step + step * 0.12, 0
        shapes = ""
        for kind in _KINDS:
            count = getattr(each, kind)
            if count:
                top, bottom = up(below + count), up(below)
                shapes += f'<path class="bar bar-{kind}" d="M{left:.1f} {bottom:.1f}V{top:.1f}h{step * 0.76:.1f}V{bottom:.1f}z"/>'
                below += count
        if shapes:
            told = f"{day(each.day)}: {each.finished} finished, {each.failed} failed, {each.other} other"
            parts.append(f"<g><title>{escape(told)}</title>{shapes}</g>")
        if (len(days) - 1 - number) % 7 == 0:
            parts.append(f'<text class="tick-x" x="{left + step * 0.38:.1f}" y="{_HEIGHT - 8}">{day(each.day)}</text>')
    total = sum(each.total for each in days)
    label = f"Task runs a day over the last {len(days)} days, {total} in all"
    return Markup(  # noqa: S704  own text, escaped where it is not
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
