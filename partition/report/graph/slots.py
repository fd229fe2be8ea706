"""Where every node stands in its layer's part of the drawing: a column and a level, both small integers.

The chain of the forward gives the columns; what belongs to a value or an operator of the forward stands in its column.

              affine    z        phi       h              affine     z          phi       h
    forward                                      backward
       1      W         b                           1     ∂h <- x    ∂z         phi'      ∂h     (right to left)
       0      x     ->  z    ->  phi   ->  h        0     W          z          phi again h      (what was kept)
                                                   -1     xT         ∂W         ∂b
    second order
       3      HW        Hb
       2      x         Hz       phi'      Hh    (right to left)
       1      W         ∂z       z         h     (what earlier passes left)
       0      x     ->  uz   ->  phi''  -> uh    (left to right)
      -1      vW        vb       ∂h
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from partition.graph.computational import ComputationalGraph, Edge, EdgeKind, GraphKind, OperatorNode, Phase, Role
from partition.graph.computational.describing_blocks import ADDED_GRADIENT, GRADIENT_SUM, NORMS, RESIDUAL_SUM
from partition.report.graph.lanes import SIDES

BEFORE = -1
"""The column of what enters the first layer."""
_PHASE_LEVELS = {
    GraphKind.FORWARD: {Phase.FORWARD: 0},
    GraphKind.BACKWARD: {Phase.INPUT_GRADIENT: 1, Phase.RECOMPUTED: 0, Phase.WEIGHT_GRADIENT: -1},
    GraphKind.SECOND_ORDER: {Phase.DOUBLE: 0, Phase.SECOND: 2},
}
_VALUE_LEVELS = {Role.TANGENT: 0, Role.CURVATURE: 2}
_PARAMETER_LEVELS = {
    GraphKind.FORWARD: {Role.PARAMETER: 1},
    GraphKind.BACKWARD: {Role.PARAMETER: 0, Role.PARAMETER_GRADIENT: -1},
    GraphKind.SECOND_ORDER: {Role.PARAMETER: 1, Role.DIRECTION: -1, Role.PARAMETER_CURVATURE: 3},
}
_WITH_ACTIVATION = 3
"""The place in its part of what an activation gives: affine, z, phi, h."""
_LEAST_WIDTH = {GraphKind.FORWARD: 2, GraphKind.BACKWARD: 3, GraphKind.SECOND_ORDER: 3}


_SUM_COLUMNS = 2
"""A sum of gradients, and what comes out of the branch."""


class Slot(NamedTuple):
    """A place in the part of one layer."""

    unit: int
    column: int
    level: int


class Slots:
    """The places of all nodes of a graph."""

    def __init__(self, graph: ComputationalGraph) -> None:
        self.graph = graph
        self.of: dict[str, Slot] = {}
        self.widths = [max(len(part), _LEAST_WIDTH[graph.kind]) for part in graph.spine]
        self.has_boundary = ["@" in part[0] for part in graph.spine]
        """Of each part: whether it begins on another stage than the one before it ends on."""
        self._taken: set[Slot] = set()
        self._columns = {"x": (0, BEFORE)}
        for unit, part in enumerate(graph.spine):
            self._columns |= self._columns_of(unit, part)
        self._roles = {node.id: node.role for node in graph.variables}
        self._place_ends()
        if graph.kind is GraphKind.BACKWARD:
            for operator in graph.operators:
                self._place_sum(operator)
        for operator in graph.operators:
            self._place_operator(operator)
        for carry in graph.carries:
            self._place_values((carry.source, carry.target), None)

    @cached_property
    def leading_past(self) -> tuple[Edge, ...]:
        """Edges along a level of the chain with another node of that level between their ends."""
        levels = SIDES[self.graph.kind]
        places: dict[int, list[Slot]] = {level: [] for level in levels}
        for slot in sorted(self.of.values()):
            places.get(slot.level, []).append(slot)
        order = {slot: number for of_level in places.values() for number, slot in enumerate(of_level)}

        def leads_past(edge: Edge) -> bool:
            source, target = self.of[edge.source], self.of[edge.target]
            if edge.kind is EdgeKind.CARRIED or source.level != target.level or source.level not in levels:
                return False
            return abs(order[source] - order[target]) > 1

        return tuple(filter(leads_past, self.graph.edges))

    def _columns_of(self, unit: int, part: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """One after another; in the backward with room for a sum of gradients, and for a norm that runs again."""
        is_backward, column, found = self.graph.kind is GraphKind.BACKWARD, 0, dict[str, tuple[int, int]]()
        sums = sum(name.startswith(RESIDUAL_SUM) for name in part) * _SUM_COLUMNS * is_backward
        for name in part:
            if sums and "@" not in name:
                column, sums = column + sums, 0
            found[name] = (unit, column)
            column += 2 if is_backward and name.startswith(NORMS) else 1
        self.widths[unit] = max(self.widths[unit], column)
        return found

    def _place_sum(self, operator: OperatorNode) -> None:
        """A sum of gradients, where its residual block begins; one that a product adds to, over the chain.

        ∂x' <- + <- ∂x <- N' <- ...
        """
        if operator.name == GRADIENT_SUM:
            branch, past = operator.reads[:2]
            unit, _ = self._column(past.removeprefix("∂")) or (0, 0)
            received = self.has_boundary[unit]
            self._put(operator.id, unit, received, 1)
            self._put(branch, unit, received + 1, 1)
        elif operator.name == ADDED_GRADIENT:
            found = self._column(operator.reads[1].removeprefix("∂"))
            if found is not None:
                self._put(operator.reads[1], found[0], found[1] + 2, 2)

    def _put(self, name: str, unit: int, column: int, level: int) -> None:
        """In this place, or the next one to the right that is free."""
        if name in self.of:
            return
        slot = Slot(unit, column, level)
        while slot in self._taken:
            slot = slot._replace(column=slot.column + 1)
        self._taken.add(slot)
        self.of[name] = slot
        self.widths[unit] = max(self.widths[unit], slot.column + 1)

    def _place_ends(self) -> None:
        """What has a place of its own beside the loss."""
        last = len(self.graph.spine) - 1
        ends = {
            GraphKind.FORWARD: {"y": (0, -1), "penalty": (1, 1), "s": (2, 1), "objective": (3, 1), "J": (4, 1)},
            GraphKind.BACKWARD: {"y": (0, 0), "∂s": (2, 0)},
            GraphKind.SECOND_ORDER: {},
        }[self.graph.kind]
        present = self._roles.keys() | {operator.id for operator in self.graph.operators}
        for name, place in ends.items():  # in this order, so that the same graph is always the same file
            if name in present:
                self._put(name, last, *place)
        if self.graph.kind is GraphKind.FORWARD:
            self.widths[last] = 5

    def _place_operator(self, operator: OperatorNode) -> None:
        unit, column = self._columns.get(operator.of or operator.id) or self._beside_value(operator)
        is_loss = operator.of == "loss" and self.graph.kind is GraphKind.SECOND_ORDER
        level = 1 if is_loss else _PHASE_LEVELS[self.graph.kind][operator.phase]
        self._put(operator.id, unit, column, level)
        self._place_parameters(operator, unit, column)
        self._place_values((*operator.reads, *operator.writes), operator)

    def _place_parameters(self, operator: OperatorNode, unit: int, column: int) -> None:
        """Over or under their operator, in order; gradients to the right of it."""
        counts: dict[Role, int] = {}
        for name in dict.fromkeys((*operator.reads, *operator.writes)):
            role = self._roles[name]
            level = _PARAMETER_LEVELS[self.graph.kind].get(role)
            if level is not None and operator.phase is Phase.RECOMPUTED and name.startswith("b"):
                self._put(name, unit, column, -1)  # of a norm that runs again, under it: beside it is its value
            elif level is not None:
                counts[role] = step = counts.get(role, -1) + 1
                shift = role is Role.PARAMETER_GRADIENT
                self._put(name, unit, column + step + shift, level)

    def _place_values(self, names: Iterable[str], operator: OperatorNode | None) -> None:
        for name in names:
            if name not in self.of and self._roles[name] not in _PARAMETER_LEVELS[self.graph.kind]:
                self._place_value(name, operator)

    def _place_value(self, name: str, operator: OperatorNode | None) -> None:
        role, kind = self._roles[name], self.graph.kind
        primal = name[1:] if role in (Role.GRADIENT, Role.TANGENT, Role.CURVATURE) or name[0] == "∂" else name
        unit, column = self._column(primal) or self._beside(operator)
        if kind is GraphKind.FORWARD:
            self._put(name, unit, column, 0)
        elif kind is GraphKind.BACKWARD:
            self._put(name, unit, column, 1 if name[0] == "∂" else 0)
        elif role in _VALUE_LEVELS:
            self._put(name, unit, column, _VALUE_LEVELS[role])
        else:
            self._put(name, unit, *self._left_behind(primal, name, column))

    def _column(self, name: str) -> tuple[int, int] | None:
        """Of a value of the chain, or of that which it was before it was changed in place."""
        while name not in self._columns and name.endswith("'"):
            name = name[:-1]
        return self._columns.get(name)

    def _beside_value(self, operator: OperatorNode) -> tuple[int, int]:
        """For an operator that the chain does not know: right of the value that it changes, or makes anew."""
        for name in (*operator.writes, *operator.reads):
            found = self._column(name.removeprefix("∂"))
            if found is not None:
                return found[0], found[1] + 1
        return (0, 0)

    def _beside(self, operator: OperatorNode | None) -> tuple[int, int]:
        """For what the chain does not know: right of its operator."""
        if operator is None or operator.id not in self.of:
            return (0, 0)
        slot = self.of[operator.id]
        return slot.unit, slot.column + 1

    def _left_behind(self, primal: str, name: str, column: int) -> tuple[int, int]:
        """Where the second order has what earlier passes left: the value and its gradient share a column.

        A value that the next operator of its part reads gives way to its gradient and stands over that operator; of
        what a part sends on, the gradient stands under its last operator.
        """
        if primal == "x":
            return column, 1
        unit, at = self._column(primal) or self._columns["x"]
        part = self.graph.spine[unit]
        is_between = at + 1 < len(part) or at < _WITH_ACTIVATION
        has_gradient = "∂" + primal in self._roles
        if name == primal:
            return (column + 1 if is_between and has_gradient else column), 1
        return (column, 1) if is_between else (column - 1, -1)
