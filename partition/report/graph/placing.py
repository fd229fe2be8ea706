"""Letters beside nodes are moved, along their node or to its other side, to where the fewest lines run through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from partition.report.graph.drawing import Box, Label, Line, Scale, text_width

T = TypeVar("T")
Point = tuple[float, float]
Segment = tuple[Point, Point]
_STEPS = 7
_STEP = 0.09
"""Of a column: how far a label is moved at a time, and how often, so that it still is its node's."""
_CLEARANCE = 0.4
"""Points that a line keeps from a node that it does not belong to."""
_CAPITALS = 0.36
"""Half the height of capitals and digits, in sizes."""


class Beside(NamedTuple):
    """A label, and the node that it says something about."""

    label: Label
    box: Box


class Area(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Area) -> bool:
        """Whether they share more than a border."""
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0
            and min(self.top, other.top) - max(self.bottom, other.bottom) > 0
        )

    def is_crossed(self, segment: Segment) -> bool:
        """Whether a straight line enters it (Liang and Barsky 1984)."""
        (x0, y0), (x1, y1) = segment
        first, last = 0.0, 1.0
        for at, to, low, high in ((x0, x1, self.left, self.right), (y0, y1, self.bottom, self.top)):
            step = to - at
            if abs(step) < 1e-9:
                if at <= low or at >= high:
                    return False
            else:
                one, other = sorted(((low - at) / step, (high - at) / step))
                first, last = max(first, one), min(last, other)
        return first < last


def area_of(label: Label, half_height: float = 0.5) -> Area:
    """What a label covers; `half_height` in its sizes."""
    width = text_width(label.text, label.size)
    left = label.x - width / 2 if label.is_centred else label.x
    half = half_height * label.size
    return Area(left, label.y - half, left + width, label.y + half)


def letters_of(label: Label) -> Area:
    """What no line should run through: the digits and capitals themselves."""
    return area_of(label, _CAPITALS)


def area_around(points: Sequence[Point]) -> Area:
    """The smallest with all of some points."""
    xs, ys = zip(*points, strict=True)
    return Area(min(xs), min(ys), max(xs), max(ys))


def node_area(box: Box, scale: Scale) -> Area:
    """What a node covers, with a little around it."""
    half_width = (scale.node_width if hasattr(box.node, "shape") else scale.node_height) / 2 + _CLEARANCE
    half_height = scale.node_height / 2 + _CLEARANCE
    return Area(box.x - half_width, box.y - half_height, box.x + half_width, box.y + half_height)


class Cells(Generic[T]):
    """Things by the cells of a grid that they touch: in a drawing of any size few are looked at."""

    def __init__(self, size: float) -> None:
        self._size = size
        self._of: dict[tuple[int, int], dict[int, T]] = {}

    def _cells(self, area: Area) -> Iterator[tuple[int, int]]:
        left, bottom, right, top = (int(value // self._size) for value in area)
        yield from ((x, y) for x in range(left, right + 1) for y in range(bottom, top + 1))

    def put(self, key: int, area: Area, thing: T) -> None:
        """Or put it elsewhere: after `drop`."""
        for cell in self._cells(area):
            self._of.setdefault(cell, {})[key] = thing

    def drop(self, key: int, area: Area) -> None:
        """What was put there."""
        for cell in self._cells(area):
            self._of[cell].pop(key)

    def near(self, area: Area) -> list[T]:
        """Everything in the cells of an area, each once."""
        found: dict[int, T] = {}
        for cell in self._cells(area):
            found.update(self._of.get(cell, {}))
        return list(found.values())


def segments_in_cells(lines: Iterable[Line], size: float) -> Cells[Segment]:
    """The straight parts of all lines."""
    cells, key = Cells[Segment](size), 0
    for line in lines:
        for start, end in pairwise(line.points):
            cells.put(key, area_around((start, end)), (start, end))
            key += 1
    return cells


def placed(
    besides: Sequence[Beside], fixed: Sequence[Label], boxes: Iterable[Box], lines: Iterable[Line], scale: Scale,
    width: float,
) -> list[Label]:  # fmt: skip
    """Each label at that of its places, on a page so wide, through which the fewest lines run; the nearest of equals.

    A place is none where a node or another label stands.
    """
    segments = segments_in_cells(lines, scale.column)
    taken = Cells[Area](scale.column)
    areas = [*(area_of(one) for one in fixed), *(node_area(box, scale) for box in boxes)]
    for key, area in enumerate([*map(area_of, (one.label for one in besides)), *areas]):
        taken.put(key, area, area)
    found = []
    for key, beside in enumerate(besides):
        own = area_of(beside.label)
        taken.drop(key, own)
        best, fewest = beside.label, _crossings(beside.label, segments)
        for label in _places(beside, scale) if fewest else ():
            area, crossings = area_of(label), _crossings(label, segments)
            is_free = area.left > 1 and area.right < width - 1 and not any(map(area.meets, taken.near(area)))
            if crossings < fewest and is_free:
                best, fewest = label, crossings
        taken.put(key, area_of(best), area_of(best))
        found.append(best)
    return found


def _crossings(label: Label, segments: Cells[Segment]) -> int:
    letters = letters_of(label)
    return sum(map(letters.is_crossed, segments.near(letters)))


def _places(beside: Beside, scale: Scale) -> Iterator[Label]:
    """On its side of the node, the nearest first; then on the other side."""
    label, box = beside
    steps = sorted(range(-_STEPS, _STEPS + 1), key=lambda step: (abs(step), step))
    for y in (label.y, 2 * box.y - label.y):
        for step in steps:
            yield label._replace(x=label.x + step * _STEP * scale.column, y=y)
