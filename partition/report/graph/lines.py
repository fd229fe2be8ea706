"""The lines of a drawing: straight where nothing stands between, else around it; and the bus of the penalty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise

from partition.graph.computational import EdgeKind, OperatorNode
from partition.report.graph.drawing import Box, Line, Scale
from partition.report.graph.paper import Paper

Point = tuple[float, float]
Boxes = Mapping[tuple[str, int], Box]
_CLEARANCE = 0.4
"""Points that a line keeps from a node that it does not belong to."""


def edge_lines(paper: Paper, boxes: Boxes) -> Iterator[Line]:
    """A line for every edge that is not on the bus."""
    of_row: dict[int, list[Box]] = {}
    for box in boxes.values():
        of_row.setdefault(box.row, []).append(box)
    for number, edge in enumerate(paper.graph.edges):
        if not paper.is_on_bus(edge):
            row = paper.row_of_edge(edge)
            source, target = boxes[edge.source, row], boxes[edge.target, row]
            points = _in_lane(paper, source, target, of_row[row])
            points = points or _route(source, target, of_row[row], paper.scale, number)
            yield Line(points, edge.kind, ends=(edge.source, edge.target))


def _in_lane(paper: Paper, source: Box, target: Box, boxes: Sequence[Box]) -> tuple[Point, ...]:
    """Out of the chain, along its lane and back; nothing where the line has none, or a node stands in its way."""
    lane = paper.lanes.get((source.node.id, target.node.id, source.row))
    if lane is None:
        return ()
    scale, y = paper.scale, paper.lane_height(source.row, lane)
    # Between two columns, and not quite in the middle: another line may come down there.
    aside = 0.48 * scale.column * (1 if target.x > source.x else -1)
    slant = 0.4 * scale.node_height * lane.side
    first, last = source.x + aside, target.x - aside
    way = ((first, source.y + slant), (first, y), (last, y), (last, target.y + slant))
    others = [box for box in boxes if box is not source and box is not target]
    points = _ended(source, target, way, scale)
    return points if is_clear(points, others, scale) else ()


def _route(source: Box, target: Box, boxes: Sequence[Box], scale: Scale, number: int) -> tuple[Point, ...]:
    """The first of some ways that touches nothing else; where there is none, the straight one.

    `number` is that of the line: lines that run between the same levels are spread a little.
    """
    reach = 3 * scale.column
    left, right = min(source.x, target.x) - reach, max(source.x, target.x) + reach
    others = [box for box in boxes if box is not source and box is not target and left <= box.x <= right]
    straight, *plain = [_ended(source, target, way, scale) for way in _ways(source, target, scale)]
    around = (_ended(source, target, way, scale) for way in _detours(source, target, scale, number))
    return next((way for way in chain((straight, *plain), around) if is_clear(way, others, scale)), straight)


def _detours(source: Box, target: Box, scale: Scale, number: int) -> list[tuple[Point, ...]]:
    """Between two columns to between two levels, along these, and back between two columns; the shortest first."""
    lowest, highest = (pick(source.y, target.y) for pick in (min, max))
    spread = (number % 3 - 1) * 0.2 * (scale.level - scale.node_height)
    steps = range(-1, round((highest - lowest) / scale.level) + 1)
    heights = [lowest + (step + 0.5) * scale.level + spread for step in steps]
    sides = [(0.5 * scale.column * one, 0.5 * scale.column * other) for one in (1, -1) for other in (1, -1)]
    ways = [_over(source, target, y, of_both, scale) for y in heights for of_both in sides]
    return sorted(ways, key=lambda way: sum(abs(x1 - x0) + abs(y1 - y0) for (x0, y0), (x1, y1) in pairwise(way)))


def _over(source: Box, target: Box, y: float, aside: tuple[float, float], scale: Scale) -> tuple[Point, ...]:
    slants = [0.35 * scale.node_height * (1 if y > box.y else -1) for box in (source, target)]
    first, last = source.x + aside[0], target.x + aside[1]
    return (first, source.y + slants[0]), (first, y), (last, y), (last, target.y + slants[1])


def _ways(source: Box, target: Box, scale: Scale) -> Iterator[tuple[Point, ...]]:
    """Points at which a line may bend, the plainest first."""
    yield ()
    dx, dy = target.x - source.x, target.y - source.y
    side = 1 if dx >= 0 else -1
    half = 0.5 * scale.node_height + 1.0
    middle, centre = source.x + dx / 2, source.y + dy / 2
    rise = half if dy >= 0 else -half
    yield (middle, centre - rise), (middle, centre + rise)
    yield ((target.x - side * 0.72 * scale.column, source.y),)
    yield ((source.x + side * 0.72 * scale.column, target.y),)
    for step in (0.5 * scale.column, -0.5 * scale.column):
        x = source.x + step
        yield (x, source.y + 0.8 * rise), (x, target.y - 0.8 * rise)
    for under in (0.68, -0.68, 0.85, -0.85):
        y = source.y - under * scale.node_height
        shift = side * 0.22 * scale.node_height
        yield (source.x + shift, y), (target.x, y)


def _ended(source: Box, target: Box, way: tuple[Point, ...], scale: Scale) -> tuple[Point, ...]:
    """From border to border."""
    towards, back = (way[0], way[-1]) if way else ((target.x, target.y), (source.x, source.y))
    return (_border(source, towards, scale), *way, _border(target, back, scale))


def _border(box: Box, towards: Point, scale: Scale) -> Point:
    """Where the line from the middle of a node leaves it."""
    dx, dy = towards[0] - box.x, towards[1] - box.y
    if isinstance(box.node, OperatorNode):
        length = (dx * dx + dy * dy) ** 0.5 or 1.0
        radius = scale.node_height / 2
        return box.x + dx / length * radius, box.y + dy / length * radius
    share = max(abs(dx) / scale.node_width, abs(dy) / scale.node_height) * 2 or 1.0
    return box.x + dx / share, box.y + dy / share


def is_clear(points: Sequence[Point], boxes: Sequence[Box], scale: Scale) -> bool:
    """Whether a line touches none of some nodes."""
    return not any(_touches(start, end, box, scale) for start, end in pairwise(points) for box in boxes)


def _touches(start: Point, end: Point, box: Box, scale: Scale) -> bool:
    """Whether a straight line enters the rectangle of a node (Liang and Barsky 1984)."""
    is_circle = isinstance(box.node, OperatorNode)
    half_width = (scale.node_height if is_circle else scale.node_width) / 2 + _CLEARANCE
    half_height = scale.node_height / 2 + _CLEARANCE
    first, last = 0.0, 1.0
    for at, to, middle, half in ((start[0], end[0], box.x, half_width), (start[1], end[1], box.y, half_height)):
        low, high, step = middle - half - at, middle + half - at, to - at
        if abs(step) < 1e-9:
            if low > 0 or high < 0:
                return False
        else:
            one, other = sorted((low / step, high / step))
            first, last = max(first, one), min(last, other)
    return first < last


def bus_lines(paper: Paper, boxes: Boxes) -> Iterator[Line]:
    """A line along every row with a branch for each weight, joined at the right end of the page."""
    hub = boxes[paper.hub, paper.row(paper.hub)]
    branches: dict[int, list[float]] = {hub.row: [hub.x]}
    for edge in paper.graph.edges:
        if paper.is_on_bus(edge):
            name = edge.source if paper.hub == "penalty" else edge.target
            line, x = _branch(paper, boxes[name, paper.row(name)])
            branches.setdefault(paper.row(name), []).append(x)
            yield line
    yield from _along(paper, branches)
    yield _to_hub(paper, hub)


def _branch(paper: Paper, box: Box) -> tuple[Line, float]:
    """From a weight up to the bus, or from the bus up to a weight gradient."""
    scale, y = paper.scale, paper.bus_height(box.row)
    if paper.hub == "penalty":
        x = box.x - scale.column / 2
        return _bus(((box.x - scale.node_width / 2, box.y), (x, box.y), (x, y))), x
    x = box.x - 0.25 * scale.node_height
    return _bus(((x, y), (x, box.y - 0.44 * scale.node_height)), has_arrow=True), x


def _along(paper: Paper, branches: Mapping[int, Sequence[float]]) -> Iterator[Line]:
    many = len(branches) > 1
    for row, places in branches.items():
        y = paper.bus_height(row)
        yield _bus(((min(places), y), (paper.gutter if many else max(places), y)))
    if many:
        heights = [paper.bus_height(row) for row in branches]
        yield _bus(((paper.gutter, min(heights)), (paper.gutter, max(heights))))


def _to_hub(paper: Paper, hub: Box) -> Line:
    y, half = paper.bus_height(hub.row), paper.scale.node_height / 2
    if paper.hub == "penalty":
        return _bus(((hub.x, y), (hub.x, hub.y + half)), has_arrow=True)
    return _bus(((hub.x, hub.y - half), (hub.x, y)))


def _bus(points: tuple[Point, ...], *, has_arrow: bool = False) -> Line:
    return Line(points, EdgeKind.READ, has_arrow, True)
