"""The computational graph as data: variables (squares), operators (circles) and the edges between them.

Three graphs of one network, each made from the instructions of its stage programs (`tracing.py`, `second_order.py`):

    forward       x -> affine -> z -> phi -> h -> ... -> o -> loss -> L -> + -> J, and every W -> penalty s -> +
    backward      every operator's adjoint: ∂J -> ∂L -> ∂o -> ∂h -> ∂z -> ..., ∂W and ∂b, and what each reads
    second order  the backward of the backward, for a direction v of the weights: a Hessian-vector product

Labels: `z3` is a variable of layer 3, `∂z3` the gradient of J in it, `vW3` the direction, `uz3` the cotangent of `∂z3`
(it equals the change of z3 along v), `Hz3` the cotangent of z3, and so `HW3` the part of H v that belongs to W3. B is
the number of examples of a microbatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from partition.graph.program import Variable


class GraphKind(StrEnum):
    """Which of the three graphs."""

    FORWARD = "forward"
    BACKWARD = "backward"
    SECOND_ORDER = "second_order"


class Role(StrEnum):
    """What a variable stands for."""

    DATA = "data"
    """Inputs and targets."""
    PARAMETER = "parameter"
    VALUE = "value"
    """What an operator of the forward computes."""
    SCALAR = "scalar"
    """L, s and J, and the gradients of J in them."""
    GRADIENT = "gradient"
    PARAMETER_GRADIENT = "parameter_gradient"
    DIRECTION = "direction"
    TANGENT = "tangent"
    """The cotangent of a gradient."""
    CURVATURE = "curvature"
    """The cotangent of a value in the backward of the backward."""
    PARAMETER_CURVATURE = "parameter_curvature"


class Phase(StrEnum):
    """When an operator runs, and of what it is the adjoint."""

    FORWARD = "forward"
    RECOMPUTED = "recomputed"
    """An operator of the forward that runs again in the backward."""
    INPUT_GRADIENT = "input_gradient"
    WEIGHT_GRADIENT = "weight_gradient"
    DOUBLE = "double"
    """The adjoint of an operator of the backward."""
    SECOND = "second"
    """The adjoint of an operator of the forward, in the backward of the backward."""


class EdgeKind(StrEnum):
    """What an edge is."""

    READ = "read"
    WRITE = "write"
    KEPT = "kept"
    """A read of what an earlier pass left."""
    CARRIED = "carried"
    """A copy from one stage to another."""


def symbolic_shape(variable: Variable) -> tuple[int | str, ...]:
    """The shape of a buffer for B examples."""
    return ("B",) * variable.has_rows + (() if variable.columns is None else (variable.columns,))


@dataclass(frozen=True, kw_only=True)
class VariableNode:
    """A square."""

    id: str
    label: str
    role: Role
    stage: int
    layer: int | None
    shape: tuple[int | str, ...]
    """`B` for the examples of a microbatch; empty for a number."""
    buffer: Variable | None = None
    """The buffer of the stage that holds it, or one of its shape; None for what lives as long as the stage."""
    is_kept: bool = False
    """Its buffer stands on its stage from the forward to the backward."""

    @property
    def shape_text(self) -> str:
        """The shape as it is written: `B×1024`."""
        return "×".join(map(str, self.shape))


@dataclass(frozen=True, kw_only=True)
class OperatorNode:
    """A circle."""

    id: str
    label: str
    name: str
    formula: str
    """What it computes, without the index of the layer."""
    phase: Phase
    stage: int
    layer: int | None
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    of: str | None = None
    """The operator of the forward that it is the adjoint of, or that it repeats."""


@dataclass(frozen=True, kw_only=True)
class Carry:
    """A variable that crosses a boundary of stages."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From a square to a circle, from a circle to a square, or from a square to its copy on another stage."""

    source: str
    target: str
    kind: EdgeKind


@dataclass(frozen=True, kw_only=True)
class ComputationalGraph:
    """One of the three graphs of a network on its stages."""

    kind: GraphKind
    segments: tuple[tuple[int, int], ...]
    """First and last layer of every stage."""
    variables: tuple[VariableNode, ...]
    operators: tuple[OperatorNode, ...]
    carries: tuple[Carry, ...]
    spine: tuple[tuple[str, ...], ...]
    """The chain of the forward, a part for each layer and one for the loss: operators and values in order."""
    kept: tuple[VariableNode, ...]
    """All that stands in memory from the forward to the backward, whichever of the graphs it is in."""

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.segments)

    @property
    def nodes(self) -> tuple[VariableNode | OperatorNode, ...]:
        """All squares, then all circles."""
        return (*self.variables, *self.operators)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, in the order of the operators."""
        return tuple(self._edges())

    def _edges(self) -> Iterator[Edge]:
        written = {written for operator in self.operators for written in operator.writes}
        written |= {carry.target for carry in self.carries}
        roles = {variable.id: variable.role for variable in self.variables}
        for operator in self.operators:
            for read in operator.reads:
                is_kept = self.kind is not GraphKind.FORWARD and read not in written and roles[read] in _LEFT_BEHIND
                yield Edge(source=read, target=operator.id, kind=EdgeKind.KEPT if is_kept else EdgeKind.READ)
            for write in operator.writes:
                yield Edge(source=operator.id, target=write, kind=EdgeKind.WRITE)
        for carry in self.carries:
            yield Edge(source=carry.source, target=carry.target, kind=EdgeKind.CARRIED)


_LEFT_BEHIND = frozenset({Role.DATA, Role.VALUE, Role.GRADIENT})
"""What a pass reads of these and does not compute itself, an earlier pass has left."""
