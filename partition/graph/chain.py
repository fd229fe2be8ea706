"""A stage as a chain of operators and the values between them: which values are kept, and which are made anew.

    value 0 (x) -> node 1 -> value 1 -> node 2 -> ... -> value n

An affine layer, and a gate of two, need their input for W alone. An activation, a norm and a dropout are cheap: each
element or row for itself, in place if nobody else needs the input. So

- what I needs is kept: z of an activation that keeps it, h of one that keeps that, x of a norm;
- what only W needs is kept if it cannot be made anew in place of a kept value, by cheap operators, once I is done with
  that: phi(z) in place of z, a norm's output in place of its input;
- nothing else is kept, and nothing of a dropout ever: its mask is made anew, and drops gradients as it drops values.

Every cheap operator thus leaves one tensor at most between F and B, and a layer that follows it none of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from partition.graph.activations import Keeps
from partition.graph.layers import Dropout, Gate, Layer, Norm, Unit


@dataclass(frozen=True)
class AffineNode:
    """z = x @ weight.T + bias."""

    layer: Layer


@dataclass(frozen=True)
class ActivationNode:
    """h = phi(z)."""

    layer: Layer


@dataclass(frozen=True)
class NormNode:
    """n = norm(x)."""

    norm: Norm


@dataclass(frozen=True)
class DropoutNode:
    """d = x * mask."""

    dropout: Dropout


@dataclass(frozen=True)
class GateNode:
    """h = silu(x @ gate.T) * (x @ up.T); its two pre-activations stand inside of it."""

    gate: Gate


@dataclass(frozen=True)
class AddNode:
    """y = branch + value `source`, the input of the block."""

    source: int
    unit: Unit


Node = AffineNode | ActivationNode | NormNode | DropoutNode | GateNode | AddNode


class Chain:
    """The nodes of a stage and what is kept of the values between them. Nodes count from 1, as their outputs do."""

    def __init__(self, units: Sequence[Unit], *, is_training: bool, owns_input: bool = True) -> None:
        self.nodes: tuple[Node | None, ...] = (None, *_nodes(units, has_dropout=is_training))
        self.is_training = is_training
        self.owns_input = owns_input
        """Whether value 0 may be overwritten: a module's caller may want its input afterwards."""
        self.last = len(self.nodes) - 1

    def keeps(self, value: int) -> bool:
        """Whether a value stands between F and B."""
        return value in self._kept

    @cached_property
    def _kept(self) -> set[int]:
        if not self.is_training:
            return set()
        values = range(self.last + 1)
        kept = {value for value in values if self.input_grad_reads(value)}
        return kept | {value for value in values if self._only_w_reads(value) and self._base(value, kept) is None}

    def input_grad_reads(self, value: int) -> bool:
        """Whether I needs a value: the operator after it its input, or the one before it its output."""
        return self._reads_output(value) or self._reads_input(value + 1)

    def _only_w_reads(self, value: int) -> bool:
        following = self._node(value + 1)
        return isinstance(following, AffineNode | GateNode) and not self.input_grad_reads(value)

    def _node(self, number: int) -> Node | None:
        return self.nodes[number] if number <= self.last else None

    def _reads_input(self, number: int) -> bool:
        node = self._node(number)
        is_pre = isinstance(node, ActivationNode) and node.layer.activation.keeps is Keeps.PRE_ACTIVATION
        return is_pre or isinstance(node, NormNode)

    def _reads_output(self, number: int) -> bool:
        node = self._node(number)
        return isinstance(node, ActivationNode) and node.layer.activation.keeps is Keeps.OUTPUT

    def _base(self, value: int, kept: set[int]) -> int | None:
        """The value in whose place another is made anew by cheap operators; None where there is none."""
        while isinstance(self._node(value), ActivationNode | NormNode | DropoutNode):
            value -= 1
            if value in kept:
                return value
        return value if isinstance(self._node(value), GateNode) else None

    def base_of(self, value: int) -> int:
        """The kept value, or the gate's output, from which W gets a value: often the value itself."""
        if self.keeps(value):
            return value
        base = self._base(value, self._kept)
        assert base is not None, "a value that W needs is kept or made anew"
        return base

    def ready_after(self, reader: int) -> int:
        """The node after whose input gradient the input of the node `reader` is there for W, or can be made there."""
        base = self.base_of(reader - 1)
        following = self._node(base + 1)
        if not self.keeps(base):  # a gate, which has its output again when its own gradient has been taken
            return base
        if isinstance(following, NormNode):  # which has x̂ then, in a place of its own if x is still needed
            return base + 1
        return base if self._reads_output(base) else base + 1

    def standardises_in_place(self, number: int) -> bool:
        """Whether a norm's gradient may overwrite the norm's input: nothing further down needs that."""
        return not self._reads_output(number - 1) and (number > 1 or self.owns_input)

    def is_free(self, value: int, number: int) -> bool:
        """Whether a value may be overwritten by the node `number`: nobody else reads it."""
        is_owned = value > 0 or self.owns_input
        return is_owned and not self.keeps(value) and not self.is_source(value, number + 1)

    def is_source(self, value: int, number: int) -> bool:
        """Whether a value is still to be added to a branch at the node `number` or after it."""
        return self._last_sums.get(value, -1) >= number

    @cached_property
    def _last_sums(self) -> dict[int, int]:
        """For every value that is added to a branch the last node at which it is."""
        return {node.source: number for number, node in enumerate(self.nodes) if isinstance(node, AddNode)}

    @cached_property
    def first_weighted(self) -> int:
        """The first node that has parameters; one beyond the last where none has."""
        kinds = AffineNode | NormNode | GateNode
        return next((i for i, node in enumerate(self.nodes) if isinstance(node, kinds)), self.last + 1)


def _nodes(units: Sequence[Unit], *, has_dropout: bool) -> Iterator[Node]:
    count = 0
    for unit in units:
        source = count
        for part in unit.parts:
            for node in _nodes_of(part, has_dropout=has_dropout):
                count += 1
                yield node
        if unit.is_residual:
            count += 1
            yield AddNode(source, unit)


def _nodes_of(part: Layer | Norm | Dropout | Gate, *, has_dropout: bool) -> Iterator[Node]:
    match part:
        case Layer():
            yield AffineNode(part)
            if not part.activation.is_identity:
                yield ActivationNode(part)
        case Norm():
            yield NormNode(part)
        case Gate():
            yield GateNode(part)
        case Dropout():
            if has_dropout:
                yield DropoutNode(part)
