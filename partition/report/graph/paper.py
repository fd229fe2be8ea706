"""A graph at one scale on a page of one width: its rows, and where in them every node stands.

The layers fill rows from the lower left to the upper right, as words fill lines. A row begins with copies ("ghosts") of
what it shares with the row under it, so that no line runs back over the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from partition.graph.computational import Edge, GraphKind
from partition.report.graph.drawing import Box, Scale, text_width
from partition.report.graph.lanes import SIDES, Lane, Skip, lanes_of
from partition.report.graph.slots import Slots
from partition.report.graph.subject import Subject
from partition.units import format_bytes

MARGIN = 16.0
_TITLE = 20.0
_LEGEND_LINE = 13.0
_CHAINS = {GraphKind.FORWARD: (0, 1), GraphKind.BACKWARD: (-1, 1), GraphKind.SECOND_ORDER: (0, 2)}
"""The lowest and the highest level that may be repeated at the beginning of a row."""


class Row(NamedTuple):
    """Some parts of the spine, side by side."""

    units: range
    bottom: float
    """Of its level 0."""
    lowest: int
    highest: int


class Paper:
    """Places in points."""

    def __init__(self, subject: Subject, slots: Slots, page: tuple[float, float], scale: Scale) -> None:
        self.subject, self.graph, self.slots = subject, subject.graph, slots
        self.page, self.scale = page, scale
        self.is_staged = self.graph.num_stages > 1
        self.hub = _hub(subject)
        widest = max((text_width(format_bytes(subject.carried_bytes(one)), scale.captions)
                      for one in self.graph.carries), default=0.0)  # fmt: skip
        self.gap = widest + scale.captions if self.graph.carries else 0.0
        self.header = _TITLE + _LEGEND_LINE * 2
        self.first_columns = 1
        """What is repeated from other rows stands in these, before the parts of a row."""
        self.lanes: dict[tuple[str, str, int], Lane] = {}
        self.rows = self._arranged()
        self.lanes = lanes_of(self._skips())
        if self.lanes:
            self.rows = self._stack([row.units for row in self.rows])

    @property
    def fits(self) -> bool:
        """On one page."""
        widest = max(map(self._unit_width, range(len(self.slots.widths))))
        return self.height <= self.page[1] and widest <= self._room

    @property
    def gutter(self) -> float:
        """Where the bus runs up the page."""
        return self.page[0] - MARGIN - 0.15 * self.scale.column

    @property
    def above(self) -> float:
        """What stands over the middle of the highest level of a row."""
        half, line = self.scale.node_height / 2, self.scale.line
        stage = 1.4 * self.scale.captions if self.is_staged else 0.0
        lines = {GraphKind.FORWARD: 2.15, GraphKind.BACKWARD: 1.1, GraphKind.SECOND_ORDER: 0.0}[self.graph.kind]
        bus = 0.4 * self.scale.node_height if self.hub and self.graph.kind is GraphKind.FORWARD else 0.0
        return half + lines * line + bus + stage + 3 + self._lanes_height(1)

    @property
    def below(self) -> float:
        """What stands under the middle of the lowest level of a row."""
        half, line = self.scale.node_height / 2, self.scale.line
        if self.graph.kind is GraphKind.FORWARD:
            return half + 2.15 * line + 2 + self._lanes_height(-1)
        if self.graph.kind is GraphKind.BACKWARD:
            return half + (0.75 if self.hub else 0.4) * self.scale.node_height + 2
        return half + 2 + self._lanes_height(-1)

    # Lanes

    @property
    def _lane_step(self) -> float:
        return max(3.0, 0.6 * self.scale.captions)

    def _lanes_height(self, side: int) -> float:
        return max((lane.number + 1 for lane in self.lanes.values() if lane.side == side), default=0) * self._lane_step

    def lane_height(self, row: int, lane: Lane) -> float:
        """Where a lane runs: beside the outermost nodes and their letters on its side."""
        one, scale, kind = self.rows[row], self.scale, self.graph.kind
        half, step = scale.node_height / 2, (lane.number + 0.6) * self._lane_step
        if kind is GraphKind.FORWARD:
            return one.bottom - half - 2.15 * scale.line - step
        if lane.side < 0:
            return one.bottom + one.lowest * scale.level - half - step
        letters = 1.1 * scale.line if kind is GraphKind.BACKWARD else 0.0
        return one.bottom + one.highest * scale.level + half + letters + step

    def _skips(self) -> Iterator[Skip]:
        """Lines along the chain of a row that lead past other nodes of it."""
        if not self.slots.leading_past:
            return
        boxes, chain = self.boxes(), dict[tuple[int, int], list[float]]()
        for (name, row), box in boxes.items():
            chain.setdefault((row, self.slots.of[name].level), []).append(box.x)
        for edge in self.slots.leading_past:
            row, level = self.row_of_edge(edge), self.slots.of[edge.source].level
            left, right = sorted((boxes[edge.source, row].x, boxes[edge.target, row].x))
            if not self.is_on_bus(edge) and any(left < x < right for x in chain[row, level]):
                yield Skip((edge.source, edge.target), row, SIDES[self.graph.kind][level], left, right)

    # Rows

    def _arranged(self) -> list[Row]:
        """Rows with as many first columns as what is repeated in them takes; each pass finds as many or more."""
        while True:
            rows = self._stack(self._fold())
            self.row_of_unit = {unit: index for index, row in enumerate(rows) for unit in row.units}
            needed = max((column + 1 for column in self._repeated().values()), default=1)
            if needed <= self.first_columns:
                return rows
            self.first_columns = needed

    def _repeated(self) -> dict[tuple[str, int], int]:
        """For every node and other row in which it is repeated the column, counted from the parts leftwards."""
        found: dict[tuple[str, int], int] = {}
        taken: Counter[tuple[int, int]] = Counter()
        for edge in self.graph.edges:
            row = self.row_of_edge(edge)
            for name in (edge.source, edge.target):
                if self.row(name) != row and (name, row) not in found and not self.is_on_bus(edge):
                    place = (row, self.slots.of[name].level)
                    found[name, row] = taken[place]
                    taken[place] += 1
        return found

    def _unit_width(self, unit: int) -> float:
        return self.slots.widths[unit] * self.scale.column + self.gap * self.slots.has_boundary[unit]

    @property
    def _room(self) -> float:
        """Of the parts of a row, beside its first column and the bus at its end."""
        beside = self.first_columns + (0.5 if self.hub else 0.0)
        return self.page[0] - 2 * MARGIN - beside * self.scale.column

    def _fold(self) -> list[range]:
        """As few rows as there can be, as even as these can be."""
        widths = [self._unit_width(unit) for unit in range(len(self.slots.widths))]
        fewest = len(_filled(widths, self._room))
        low, high = max(widths), max(self._room, max(widths))
        while high - low > 1.0:
            middle = (low + high) / 2
            low, high = (middle, high) if len(_filled(widths, middle)) > fewest else (low, middle)
        return _filled(widths, high)

    def _stack(self, units: Sequence[range]) -> list[Row]:
        """From the bottom of the page upwards."""
        levels: dict[int, list[int]] = {}
        for slot in self.slots.of.values():
            levels.setdefault(slot.unit, []).append(slot.level)
        rows, y = [], MARGIN
        for one in units:
            of_row = [level for unit in one for level in (*levels.get(unit, ()), *_CHAINS[self.graph.kind])]
            lowest, highest = min(of_row), max(of_row)
            y += self.below - lowest * self.scale.level
            rows.append(Row(one, y, lowest, highest))
            y += highest * self.scale.level + self.above + 0.25 * self.scale.node_height
        self.height = y + self.header
        return rows

    # Places

    def row(self, name: str) -> int:
        """The row of a node."""
        return self.row_of_unit[self.slots.of[name].unit]

    def _row_width(self, row: Row) -> float:
        return self.first_columns * self.scale.column + sum(map(self._unit_width, row.units))

    def _begin(self, row: int) -> float:
        """Where a row begins: at the left, but the last one ends at the right, where the objective is."""
        widths = [self._row_width(one) for one in self.rows]
        return MARGIN + (max(widths) - widths[row] if row == len(self.rows) - 1 else 0.0)

    @cached_property
    def _lefts(self) -> list[float]:
        """Where each part begins: after the first column and the parts before it in its row."""
        lefts = []
        for index, row in enumerate(self.rows):
            x = self._begin(index) + self.first_columns * self.scale.column
            for unit in row.units:
                lefts.append(x)
                x += self._unit_width(unit)
        return lefts

    def place(self, name: str) -> tuple[float, float]:
        """The middle of a node."""
        slot = self.slots.of[name]
        gap = self.gap if self.slots.has_boundary[slot.unit] else 0.0
        x = self._lefts[slot.unit] + gap + (slot.column + 0.5) * self.scale.column
        return x, self.rows[self.row(name)].bottom + slot.level * self.scale.level

    def boxes(self) -> dict[tuple[str, int], Box]:
        """Every node in its row, and the ghosts at the beginning of others."""
        nodes = {node.id: node for node in self.graph.nodes}
        boxes = {(name, self.row(name)): Box(nodes[name], *self.place(name), self.row(name)) for name in self.slots.of}
        for (name, row), column in self._repeated().items():
            x = self._begin(row) + (self.first_columns - column - 0.5) * self.scale.column
            y = self.rows[row].bottom + self.slots.of[name].level * self.scale.level
            boxes[name, row] = Box(nodes[name], x, y, row, True)
        return boxes

    def row_of_edge(self, edge: Edge) -> int:
        """Where an edge is drawn: in the upper of the rows of its ends."""
        return max(self.row(edge.source), self.row(edge.target))

    def is_on_bus(self, edge: Edge) -> bool:
        """Whether it is one of the many from all weights to their penalty, or from that to all their gradients."""
        if self.hub == "penalty":
            return edge.target == self.hub
        return self.hub == "∂s" and edge.source == self.hub

    def bus_height(self, row: int) -> float:
        """Where the bus runs along a row: over its highest level, or under its lowest."""
        one, scale = self.rows[row], self.scale
        if self.graph.kind is GraphKind.FORWARD:
            return one.bottom + scale.level + 0.5 * scale.node_height + 2.15 * scale.line + 0.2 * scale.node_height
        return one.bottom - scale.level - 1.15 * scale.node_height


def _hub(subject: Subject) -> str:
    """What all weights lead to, or all weight gradients come from; empty where there is no penalty."""
    names = {node.id for node in subject.graph.nodes}
    hub = {GraphKind.FORWARD: "penalty", GraphKind.BACKWARD: "∂s"}.get(subject.graph.kind, "")
    return hub if hub in names else ""


def _filled(widths: Sequence[float], room: float) -> list[range]:
    """Rows of parts side by side, each as full as it can be."""
    rows, start, used = [], 0, 0.0
    for unit, width in enumerate(widths):
        if unit > start and used + width > room:
            rows.append(range(start, unit))
            start, used = unit, 0.0
        used += width
    rows.append(range(start, len(widths)))
    return rows
