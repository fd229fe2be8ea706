"""The lines of a drawing: straight where nothing stands between, else around it; and the bus of the penalty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise

from partition.graph.computational import EdgeKind, OperatorNode
from partition.report.graph.drawing import Box, Label, Line, Scale
from partition.report.graph.paper import Paper
from partition.report.graph.placing import Area, Cells, Point, area_around, letters_of, node_area

Boxes = Mapping[tuple[str, int], Box]


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


def past_letters(paper: Paper, boxes: Boxes, lines: Iterable[Line], labels: Iterable[Label]) -> Iterator[Line]:
    """The lines again, those through letters led another way where there is one that is clear of nodes and letters."""
    of_row: dict[int, list[Box]] = {}
    for box in boxes.values():
        of_row.setdefault(box.row, []).append(box)
    letters = Cells[Area](paper.scale.column)
    for key, label in enumerate(labels):
        letters.put(key, letters_of(label), letters_of(label))
    rows = {(edge.source, edge.target): paper.row_of_edge(edge) for edge in paper.graph.edges}
    for line in lines:
        row = rows.get(line.ends)
        if row is None or not _is_through(line.points, letters.near(area_around(line.points))):
            yield line
            continue
        source, target = boxes[line.ends[0], row], boxes[line.ends[1], row]
        ways = _clear_ways(source, target, of_row[row], paper.scale)
        around = (way for way in ways if not _is_through(way, letters.near(area_around(way))))
        yield line._replace(points=next(around, line.points))


def _is_through(points: Sequence[Point], areas: Sequence[Area]) -> bool:
    return any(area.is_crossed(segment) for segment in pairwise(points) for area in areas)


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
    straight = _ended(source, target, (), scale)
    return next(_clear_ways(source, target, boxes, scale, (number % 3 - 1,)), straight)


def _clear_ways(
    source: Box, target: Box, boxes: Sequence[Box], scale: Scale, spreads: Sequence[int] = (0, 1, -1)
) -> Iterator[tuple[Point, ...]]:
    """All that touch nothing else, the plainest first."""
    reach = 3 * scale.column
    left, right = min(source.x, target.x) - reach, max(source.x, target.x) + reach
    others = [box for box in boxes if box is not source and box is not target and left <= box.x <= right]
    detours = (way for spread in spreads for way in _detours(source, target, scale, spread))
    for way in chain(_ways(source, target, scale), detours):
        points = _ended(source, target, way, scale)
        if is_clear(points, others, scale):
            yield points


def _detours(source: Box, target: Box, scale: Scale, shift: int) -> list[tuple[Point, ...]]:
    """Between two columns to between two levels, along these, and back between two columns; the shortest first."""
    lowest, highest = (pick(source.y, target.y) for pick in (min, max))
    spread = shift * 0.2 * (scale.level - scale.node_height)
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
    areas = [node_area(box, scale) for box in boxes]
    return not _is_through(points, areas)


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
