"""Curves over an axis: the chart as data, and as SVG."""

from __future__ import annotations

import math

from markupsafe import Markup, escape
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.axes import Scale, scale, tick_text

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 44
_MOST_POINTS = 1500
_STYLES = 6  # line styles in the style sheet, each with a colour and dashes of its own


class Axis(BaseModel):
    """What an axis measures, and in which unit (empty for none)."""

    label: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


class Curve(BaseModel):
    """A named line through points; None is a gap."""

    name: str
    x: list[float]
    y: list[float | None]


class Chart(BaseModel):
    """Curves over a common axis. `whole`: x counts things; `zero`: the y axis begins at 0; `marks`: points are shown."""

    title: str
    x: Axis
    y: Axis
    curves: list[Curve]
    whole: bool = False
    zero: bool = False
    marks: bool = False

    def svg(self) -> Markup:
        """The chart as an SVG element; names of the curves belong into a legend beside it."""
        xs = [x for curve in self.curves for x in curve.x]
        ys = [y for curve in self.curves for y in curve.y if y is not None]
        across = scale(xs, _LEFT, _WIDTH - _RIGHT, count=8, whole=self.whole, tight=not self.whole or len(set(xs)) > 1)
        up = scale([*ys, 0.0] if self.zero else ys, _HEIGHT - _BOTTOM, _TOP)
        parts = [_grid(across, up), _labels(self, across, up)]
        parts += [
            _line(curve, number % _STYLES + 1, across, up, self.marks) for number, curve in enumerate(self.curves)
        ]
        return Markup(  # noqa: S704  own text, escaped where it is not
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(self.described())}">'
            f"{''.join(parts)}</svg>"
        )

    def described(self) -> str:
        """The chart in one sentence, for who does not see it."""
        ranges = []
        for curve in self.curves:
            ys = [y for y in curve.y if y is not None]
            if ys:
                ranges.append(
                    f"{curve.name}: from {tick_text(float(f'{ys[0]:.4g}'))} to {tick_text(float(f'{ys[-1]:.4g}'))}"
                )
        return f"{self.title}: {self.y} over {self.x}. {'; '.join(ranges)}"

    def rows(self) -> list[tuple[float, list[float | None]]]:
        """The chart as a table: x, and y of each curve there."""
        by_x: dict[float, list[float | None]] = {}
        for number, curve in enumerate(self.curves):
            for x, y in zip(curve.x, curve.y, strict=True):
                by_x.setdefault(x, [None] * len(self.curves))[number] = y
        return sorted(by_x.items())


def _grid(across: Scale, up: Scale) -> str:
    lines = [f'<path class="grid" d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}"/>' for y in up.ticks]
    lines += [f'<path class="tick" d="M{across(x):.1f} {_HEIGHT - _BOTTOM}v5"/>' for x in across.ticks]
    return "".join(lines) + f'<path class="axis" d="M{_LEFT} {_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'


def _labels(chart: Chart, across: Scale, up: Scale) -> str:
    texts = [f'<text class="tick-y" x="{_LEFT - 8}" y="{up(y) + 4:.1f}">{tick_text(y)}</text>' for y in up.ticks]
    texts += [
        f'<text class="tick-x" x="{across(x):.1f}" y="{_HEIGHT - _BOTTOM + 19}">{tick_text(x)}</text>'
        for x in across.ticks
    ]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    texts.append(
        f'<text class="label-x" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}">{escape(str(chart.x))}</text>'
    )
    texts.append(
        f'<text class="label-y" x="14" y="{middle}" transform="rotate(-90 14 {middle})">{escape(str(chart.y))}</text>'
    )
    return "".join(texts)


def _line(curve: Curve, style: int, across: Scale, up: Scale, marks: bool) -> str:
    path, pen_down = [], False
    points = thinned(curve)
    for x, y in points:
        if y is None:
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{across(x):.1f} {up(y):.1f}")
        pen_down = True
    drawn = f'<path class="curve curve-{style}" d="{"".join(path)}"/>'
    if marks or len(points) == 1:
        drawn += "".join(
            f'<circle class="mark mark-{style}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4"/>'
            for x, y in points
            if y is not None
        )
    return drawn


def thinned(curve: Curve) -> list[tuple[float, float | None]]:
    """The points that are drawn: of very many, the least and the greatest of each stretch, so that no peak is lost."""
    points: list[tuple[float, float | None]] = [
        (x, y if y is not None and math.isfinite(y) else None) for x, y in zip(curve.x, curve.y, strict=True)
    ]
    if len(points) <= _MOST_POINTS:
        return points
    stretch = math.ceil(len(points) / (_MOST_POINTS // 2))
    kept: list[tuple[float, float | None]] = []
    for first in range(0, len(points), stretch):
        known = [(x, y) for x, y in points[first : first + stretch] if y is not None]
        if not known:
            kept.append(points[first])
            continue
        kept += sorted({min(known, key=lambda point: point[1]), max(known, key=lambda point: point[1])})
    return kept
