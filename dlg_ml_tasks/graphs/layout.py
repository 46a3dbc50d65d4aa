"""Where the nodes of a graph stand in the editor: from left to right, nothing on top of anything, no link through a node.

A task and its output take two places in a row; `lane` counts rows downwards. EAGLE draws a scatter as a circle around its nodes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TypeAlias

STEP = 130
"""From a task to its output, and from there to the next task."""

LANE = 150
NODE_RADIUS = 25
_MARGIN = 60
"""Between a scatter's outermost node and its circle, as EAGLE draws it."""

Point: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True)
class Place:
    """What the layout knows of a task: the tasks before it, and the scatter that it stands in, if any."""

    sources: tuple[str, ...]
    scatter: str | None = None


@dataclass(frozen=True)
class Layout:
    """Centres of tasks, of their outputs and of scatters, by name."""

    tasks: Mapping[str, Point]
    outputs: Mapping[str, Point]
    scatters: Mapping[str, Point]


def arrange(places: Mapping[str, Place]) -> Layout:
    """Lay out tasks, by name. Raises graphlib.CycleError if tasks wait for each other."""
    columns = _columns(places)
    places = {name: places[name] for name in sorted(places, key=lambda name: columns[name])}
    lanes = _Lanes(places, columns)
    x = _column_positions(columns, lanes.circles.values())
    tasks = {name: (x[columns[name]], LANE * lane) for name, lane in lanes.found.items()}
    centres = {
        scatter: (round((x[circle.first] + x[circle.last] + STEP) / 2), round(circle.middle * LANE))
        for scatter, circle in lanes.circles.items()
    }
    return Layout(tasks, {name: (at + STEP, y) for name, (at, y) in tasks.items()}, centres)


@dataclass(frozen=True)
class _Circle:
    """What EAGLE draws around a scatter, if no more than its nodes is known: first and last column, top and bottom lane."""

    first: int
    last: int
    top: int
    bottom: int

    @property
    def middle(self) -> float:
        """The lane of the centre; between two lanes if it ends in a half."""
        return (self.top + self.bottom) / 2

    @property
    def half_width(self) -> float:
        return STEP * (self.last - self.first + 0.5)

    @property
    def reach(self) -> float:
        """How far from the centre other nodes must stay."""
        half_height = LANE * (self.bottom - self.top) / 2
        return math.hypot(self.half_width, half_height) + NODE_RADIUS + _MARGIN + 2 * NODE_RADIUS


def _columns(places: Mapping[str, Place]) -> dict[str, int]:
    """How many tasks lie on the longest way to each."""
    columns: dict[str, int] = {}
    for name in TopologicalSorter({name: place.sources for name, place in places.items()}).static_order():
        columns[name] = 1 + max((columns[source] for source in places[name].sources), default=-1)
    return columns


def _column_positions(columns: Mapping[str, int], circles: Iterable[_Circle]) -> list[int]:
    """x of each column; before and after a scatter's columns is room for its circle."""
    gaps = [0] * (max(columns.values(), default=0) + 2)
    for circle in circles:
        needed = max(0, math.ceil(circle.reach - circle.half_width - STEP))
        for column in (circle.first, circle.last + 1):
            gaps[column] = max(gaps[column], needed)
    return [2 * STEP * column + sum(gaps[: column + 1]) for column in range(len(gaps) - 1)]


class _Lanes:
    """Chooses a lane for each task: near its sources, free, and such that no link runs along a lane through other tasks."""

    def __init__(self, places: Mapping[str, Place], columns: Mapping[str, int]) -> None:
        self.found: dict[str, int] = {}
        self.circles: dict[str, _Circle] = {}
        self._places, self._columns = places, columns
        # Scatters first, one below the other: their circles bar what lies beside them.
        for scatter in dict.fromkeys(place.scatter for place in places.values() if place.scatter is not None):
            self._place_scatter(scatter, [name for name, place in places.items() if place.scatter == scatter])
        self._place([name for name, place in places.items() if place.scatter is None], 0)

    def _place_scatter(self, scatter: str, members: Sequence[str]) -> None:
        self._place(members, 1 + max(self.found.values(), default=-1))
        circle = self._around(members)
        bottoms = [other.middle + other.reach / LANE for other in self.circles.values()]
        down = max((math.ceil(bottom + circle.reach / LANE - circle.middle) for bottom in bottoms), default=0)
        self.found.update({name: self.found[name] + down for name in members})
        self.circles[scatter] = self._around(members)

    def _around(self, members: Sequence[str]) -> _Circle:
        columns, lanes = [self._columns[name] for name in members], [self.found[name] for name in members]
        return _Circle(min(columns), max(columns), min(lanes), max(lanes))

    def _place(self, names: Sequence[str], first: int) -> None:
        for name in names:
            self.found[name] = next(lane for lane in self._near(name, first) if self._is_free(name, lane))

    def _near(self, name: str, first: int) -> Iterator[int]:
        lanes = [self.found[source] for source in self._places[name].sources if source in self.found]
        wanted = round(sum(lanes) / len(lanes)) if lanes else first
        for distance in itertools.count():
            yield wanted + distance
            if wanted - distance >= first:
                yield wanted - distance

    def _is_free(self, name: str, lane: int) -> bool:
        column = self._columns[name]
        taken = {self._columns[other] for other, at in self.found.items() if at == lane}
        if column in taken or any(
            circle.first <= column <= circle.last and abs(lane - circle.middle) * LANE < circle.reach
            for circle in self.circles.values()
        ):
            return False
        alongside = [source for source in self._places[name].sources if self.found.get(source) == lane]
        return not any(set(range(self._columns[source] + 1, column)) & taken for source in alongside)
