"""A graph from left to right, each node a link: layers by the longest way, crossings few, long edges led around nodes.

The usual steps of layered drawing (Sugiyama, Tagawa and Toda 1981): layers, points where an edge passes a layer, order within a
layer by the mean place of the neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape
from pydantic import BaseModel

_WIDE, _HIGH = 152, 50
_GAP_X, _GAP_Y = 40, 18
_MARGIN = 6
_SWEEPS = 8
_FITS = 900  # pixels; a wider graph shrinks with the page, down to this
_LABEL = 20  # characters that fit into a node


class Node(BaseModel):
    """Something in the graph: `kind` is file, run, model or group; `href` is relative to the site, empty for what is not public."""

    id: str
    kind: str
    label: str
    detail: str
    href: str
    focus: bool = False


class Link(BaseModel):
    """Something went from one node to another, in the role of a port's name."""

    source: str
    target: str
    role: str


class _Place:
    """Where a node, or an edge on its way, stands: its layer, and its middle in pixels."""

    def __init__(self, layer: int, high: int) -> None:
        self.layer = layer
        self.high = high
        self.y = 0.0
        self.before: list[_Place] = []
        self.after: list[_Place] = []

    @property
    def left(self) -> float:
        return _MARGIN + self.layer * (_WIDE + _GAP_X)


def draw(nodes: Sequence[Node], links: Sequence[Link], prefix: str) -> Markup:
    """The graph as an SVG element. It must have no cycle. `prefix` goes before each node's address."""
    layers = _layers([node.id for node in nodes], links)
    places = {node.id: _Place(layers[node.id], _HIGH) for node in nodes}
    points = list(places.values())
    ways = []
    for link in links:
        way = [places[link.source]]
        for layer in range(layers[link.source] + 1, layers[link.target]):
            points.append(_Place(layer, 8))
            way.append(points[-1])
        way.append(places[link.target])
        for one, next_one in pairwise(way):
            one.after.append(next_one)
            next_one.before.append(one)
        ways.append((link, way))
    height = _arrange(points)
    width = 2 * _MARGIN + (max(layers.values(), default=0) + 1) * (_WIDE + _GAP_X) - _GAP_X
    edges = "".join(_edge(way, link.role) for link, way in ways)
    drawn = "".join(_node(node, places[node.id], prefix) for node in nodes)
    # A group and not a picture: its links are to be reached.
    label = "Lineage, from raw files on the left to predictions on the right"
    style = "graph graph-wide" if width > _FITS else "graph"
    return Markup(  # noqa: S704  own text, escaped where it is not
        f'<svg class="{style}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="group" aria-label="{label}">{edges}{drawn}</svg>'
    )


def _layers(nodes: Sequence[str], links: Sequence[Link]) -> dict[str, int]:
    """The longest way from any node without sources; then each source is drawn up to its nearest target."""
    sources, targets = defaultdict(list), defaultdict(list)
    for link in links:
        sources[link.target].append(link.source)
        targets[link.source].append(link.target)
    layers: dict[str, int] = {}
    waiting = {node: len(sources[node]) for node in nodes}
    order: list[str] = []
    ready = [node for node in nodes if not waiting[node]]
    while ready:
        node = ready.pop()
        order.append(node)
        layers[node] = max((layers[each] + 1 for each in sources[node]), default=0)
        for target in targets[node]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if len(order) < len(nodes):
        raise ValueError("the graph has a cycle")
    for node in reversed(order):
        if targets[node]:
            layers[node] = min(layers[each] for each in targets[node]) - 1
    return layers


def _arrange(points: list[_Place]) -> float:
    """Give each point its place within its layer; returns the height of all."""
    columns: dict[int, list[_Place]] = defaultdict(list)
    for point in points:
        columns[point.layer].append(point)
    for column in columns.values():
        _stack(column)
    order = sorted(columns)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for layer in order if forward else reversed(order):
            column = columns[layer]
            wanted = {id(point): _mean(point.before if forward else point.after, point.y) for point in column}
            column.sort(key=lambda point: wanted[id(point)])
            _stack(column, [wanted[id(point)] for point in column])
    top = min(point.y - point.high / 2 for point in points)
    for point in points:
        point.y += _MARGIN - top
    return max(point.y + point.high / 2 for point in points) + _MARGIN


def _mean(neighbours: list[_Place], otherwise: float) -> float:
    return sum(each.y for each in neighbours) / len(neighbours) if neighbours else otherwise


def _stack(column: list[_Place], wanted: Sequence[float] = ()) -> None:
    """Put the points of a column below one another in their order, as near as possible to where each is wanted."""
    y = 0.0
    for number, point in enumerate(column):
        y += point.high / 2
        if wanted:
            y = max(y, wanted[number]) if number else wanted[0]
        point.y = y
        y += point.high / 2 + _GAP_Y
    if wanted and column:
        # What was pushed down is moved up again, together.
        shift = sum(wanted) / len(wanted) - sum(point.y for point in column) / len(column)
        for point in column:
            point.y += shift


def _edge(way: list[_Place], role: str) -> str:
    x, y = way[0].left + _WIDE, way[0].y
    path = f"M{x:.0f} {y:.1f}"
    for number, point in enumerate(way[1:], 1):
        middle = (x + point.left) / 2
        path += f"C{middle:.0f} {y:.1f} {middle:.0f} {point.y:.1f} {point.left:.0f} {point.y:.1f}"
        x, y = point.left, point.y
        if number < len(way) - 1:
            x += _WIDE
            path += f"H{x:.0f}"
    return f'<path class="edge" d="{path}"><title>{escape(role)}</title></path>'


def _node(node: Node, place: _Place, prefix: str) -> str:
    x, y = place.left, place.y - _HIGH / 2
    shape = (
        f"<title>{escape(f'{node.label}: {node.detail}')}</title>"
        f'<rect class="node node-{escape(node.kind)}{" node-focus" if node.focus else ""}" x="{x:.0f}" y="{y:.1f}" width="{_WIDE}" '
        f'height="{_HIGH}" rx="{25 if node.kind == "model" else 6}"/>'
        f'<text class="node-label" x="{x + _WIDE / 2:.0f}" y="{y + 21:.1f}">{escape(_fitting(node.label))}</text>'
        f'<text class="node-detail" x="{x + _WIDE / 2:.0f}" y="{y + 38:.1f}">{escape(_fitting(node.detail))}</text>'
    )
    if not node.href:
        return f"<g>{shape}</g>"
    current = ' aria-current="true"' if node.focus else ""
    return f'<a href="{escape(prefix)}/{escape(node.href)}"{current}>{shape}</a>'


def _fitting(text: str) -> str:
    """The text, or its beginning and its end: names of observations differ in the middle or at the end."""
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 11]}…{text[-10:]}"
