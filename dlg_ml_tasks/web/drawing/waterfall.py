"""A waterfall with masks over it: pictures of one pixel per sample in a frame of axes, and a scale of its colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from dlg_ml_tasks.tasks.showing import Extent
from dlg_ml_tasks.web.drawing.axes import Scale, scale, tick_text
from dlg_ml_tasks.web.pages.formatting import path as quoted

if TYPE_CHECKING:
    from dlg_ml_tasks.web.pages.results import WaterfallView

_WIDTH, _HEIGHT = 900, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 96, 10, 46
_BAR = 14

# Viridis at equal steps (matplotlib's, CC0), from low to high.
_VIRIDIS = (
    "#440154",
    "#482878",
    "#3e4989",
    "#31688e",
    "#26828e",
    "#1f9e89",
    "#35b779",
    "#6ece58",
    "#b5de2b",
    "#fde725",
)


def waterfall_svg(view: WaterfallView, run_id: str, prefix: str) -> Markup:
    """The waterfall as an SVG element; layer N has the class ``layer-N``, by which a page shows and hides it."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    across = _along(view.x, _LEFT, right)
    down = _along(view.y, _TOP, bottom)
    frame = f'x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}"'
    pictures = (
        f'<image class="samples" href="{_address(prefix, run_id, view.file)}" {frame} preserveAspectRatio="none"/>'
    )
    for number, layer in enumerate(view.layers, 1):
        style = f"samples layer layer-{number}" + (" layer-earlier" if layer.run_id != run_id else "")
        address = _address(prefix, layer.run_id, layer.file)
        pictures += f'<image class="{style}" href="{address}" {frame} preserveAspectRatio="none"/>'
    label = f"{view.title}: {_named(view.value)} over {_named(view.x)} and {_named(view.y)}"
    for layer in view.layers:
        label += f"; {layer.name} cover {100 * layer.fraction:.2f} per cent"
    return Markup(  # noqa: S704  own text, escaped where it is not
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{pictures}'
        f'<rect class="frame" {frame}/>{_ticks(view, across, down)}{_colours(view.value)}</svg>'
    )


def _along(extent: Extent, start: float, end: float) -> Scale:
    """A scale from the first to the last value, whichever is greater."""
    low, high = sorted((extent.first, extent.last))
    rising = extent.last >= extent.first
    return scale([low, high], start if rising else end, end if rising else start, count=8, tight=True)


def _ticks(view: WaterfallView, across: Scale, down: Scale) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<path class="tick" d="M{across(x):.1f} {bottom}v5"/>'
        f'<text class="tick-x" x="{across(x):.1f}" y="{bottom + 19}">{tick_text(x)}</text>'
        for x in across.ticks
    ]
    parts += [
        f'<path class="tick" d="M{_LEFT} {down(y):.1f}h-5"/>'
        f'<text class="tick-y" x="{_LEFT - 8}" y="{down(y) + 4:.1f}">{tick_text(y)}</text>'
        for y in down.ticks
    ]
    middle = (_TOP + bottom) / 2
    parts.append(f'<text class="label-x" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 7}">{escape(_named(view.x))}</text>')
    parts.append(
        f'<text class="label-y" x="14" y="{middle}" transform="rotate(-90 14 {middle})">{escape(_named(view.y))}</text>'
    )
    return "".join(parts)


def _colours(value: Extent) -> str:
    left, bottom = _WIDTH - _RIGHT + 18, _HEIGHT - _BOTTOM
    up = scale([value.first, value.last], bottom, _TOP, count=5, tight=True)
    step = (bottom - _TOP) / len(_VIRIDIS)
    parts = [
        f'<rect x="{left}" y="{bottom - (number + 1) * step:.2f}" width="{_BAR}" height="{step + 0.4:.2f}" fill="{colour}"/>'
        for number, colour in enumerate(_VIRIDIS)
    ]
    parts += [
        f'<text class="tick-c" x="{left + _BAR + 6}" y="{up(tick) + 4:.1f}">{tick_text(tick)}</text>'
        for tick in up.ticks
    ]
    x, middle = _WIDTH - 12, (_TOP + bottom) / 2
    parts.append(
        f'<text class="label-y" x="{x}" y="{middle}" transform="rotate(-90 {x} {middle})">{escape(_named(value))}</text>'
    )
    return "".join(parts)


def _named(extent: Extent) -> str:
    return f"{extent.label} ({extent.unit})" if extent.unit else extent.label


def _address(prefix: str, run_id: str, file: str) -> str:
    return str(escape(f"{prefix}/files/{run_id}/{quoted(file)}"))
