"""The backward of the backward: H v for a direction v of the weights, operator by operator.

The backward is a function of x, W and the gradient that comes in, and is differentiated by hand. With the cotangents
uh, vW, vb of the three gradients ∂h (to the layer before), ∂W, ∂b of an affine layer:

    uz  = uh Wᵀ + h vWᵀ + vb        Hh += ∂z vW        HW += ∂zᵀ uh + λ vW

and with that of ∂z = ∂h ⊙ phi'(z):

    uh  = uz ⊙ phi'(z)              Hz += uz ⊙ ∂h ⊙ phi''(z)

So the u run as the forward does, from the first layer to the loss, which turns uo into Ho = loss''(o) uo; then the H
run back as the gradients did, by the operators of the backward. Norms and gates have the same two adjoints; masks and
the sums of residual blocks are linear: what a sum adds, its u adds too, and its H goes both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from partition.errors import PartitionError
from partition.graph.computational.describing_blocks import GRADIENT_SUM, RESIDUAL_SUM
from partition.graph.computational.nodes import Carry, OperatorNode, Phase, Role, VariableNode
from partition.graph.computational.second_order_words import LINEAR, Pair, double_words, second_words
from partition.graph.computational.tracing import GRADIENT, LOSS, Trace

TANGENT, DIRECTION, CURVATURE = "u", "v", "H"
_PRIMAL = (Role.VALUE, Role.DATA, Role.PARAMETER)


def second_order(trace: Trace) -> tuple[list[OperatorNode], list[Carry]]:
    """Operators and boundaries of the second-order graph; its variables are added to the trace."""
    return _SecondOrder(trace).build()


class _SecondOrder:
    """Writes the adjoint of every operator of the backward, then that of every operator of the forward once more."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def build(self) -> tuple[list[OperatorNode], list[Carry]]:
        pairs = list(self._pairs())
        self._check(pairs)
        operators = [self._double(pair) for pair in reversed(pairs)]
        operators.append(self._loss())
        operators += [self._second(pair) for pair in pairs]
        carries = [
            Carry(source=self._tangent(one.source), target=self._tangent(one.target))
            for one in self.trace.forward_carries
        ]
        carries += [
            Carry(source=self._curvature(one.target), target=self._curvature(one.source))
            for one in reversed(self.trace.forward_carries)
        ]
        return operators, carries

    def _check(self, pairs: list[Pair]) -> None:
        """Refuse what would lack an operator: only adjoints of operators that name what they are of can be taken."""
        known = {pair.forward.id for pair in pairs} | {LOSS}
        missing = [one.name for one in self.trace.forward if one.id not in known]
        alone = (one for one in self.trace.backward if one.of is None and one.name != GRADIENT_SUM)
        missing += [one.name for one in alone if one.phase is not Phase.RECOMPUTED]
        if missing:
            raise PartitionError(
                f"the second-order graph is not known of a network with {missing[0]!r}; take --forward or --backward"
            )

    def _pairs(self) -> Iterator[Pair]:
        """In the order of the backward."""
        adjoints: dict[str, list[OperatorNode]] = {}
        for one in self.trace.backward:
            if one.of is not None and one.of != LOSS and one.phase is not Phase.RECOMPUTED:
                adjoints.setdefault(one.of, []).append(one)
        for forward in reversed(self.trace.forward):
            if forward.id in adjoints or forward.name == RESIDUAL_SUM:
                has_input = any(self._role(name) is Role.VALUE for name in forward.reads)
                yield Pair(forward, tuple(adjoints.get(forward.id, ())), has_input)

    # Operators

    def _double(self, pair: Pair) -> OperatorNode:
        """The adjoint of what the backward does for one operator."""
        forward = pair.forward
        roles = {name: self._role(name) for name in forward.reads}
        curved = [name for name in forward.reads if self._is_curved(pair, name)]
        reads = [self._tangent(name) for name, role in roles.items() if role is Role.VALUE]
        reads += [self._direction(name) for name, role in roles.items() if role is Role.PARAMETER]
        reads += self._primal(pair) + self._gradients(pair) * bool(pair.has_input and curved)
        writes = [*map(self._tangent, forward.writes), *map(self._curvature, curved)]
        label, formula = double_words(pair, self.trace.network.l2_penalty > 0)
        return self._node(forward, f"backward of the {forward.name} gradient", label, formula, Phase.DOUBLE,
                          (reads, writes))  # fmt: skip

    def _second(self, pair: Pair) -> OperatorNode:
        """The adjoint of an operator of the forward, on cotangents of the second order."""
        forward = pair.forward
        reads = [self._curvature(name) for name in forward.writes] + self._primal(pair)
        writes = [self._curvature(name) for name in forward.reads if self._role(name) is not Role.DATA]
        label, formula = second_words(pair)
        return self._node(forward, f"second {forward.name} gradient", label, formula, Phase.SECOND, (reads, writes))

    def _loss(self) -> OperatorNode:
        loss = next(one for one in self.trace.forward if one.id == LOSS)
        o = loss.reads[0]
        formula = f"Ho = {loss.name}''(o) uo"
        name = f"second derivative of {loss.name}"
        return self._node(loss, name, "ℓ''", formula, Phase.DOUBLE,
                          ([self._tangent(o), o], [self._curvature(o)]))  # fmt: skip

    def _node(self, forward: OperatorNode, name: str, label: str, formula: str, phase: Phase,
              ends: tuple[list[str], list[str]]) -> OperatorNode:  # fmt: skip
        reads, writes = (tuple(dict.fromkeys(names)) for names in ends)
        place = "" if forward.layer is None else f" {forward.layer}"
        return replace(forward, id=f"{name}{place}", label=label, name=name, formula=formula, phase=phase, reads=reads,
                       writes=writes, of=forward.id)  # fmt: skip

    # What is read

    def _reads(self, pair: Pair, roles: tuple[Role, ...]) -> list[str]:
        names = [name for one in pair.backward for name in one.reads if self._role(name) in roles]
        return list(dict.fromkeys(names))

    def _gradients(self, pair: Pair) -> list[str]:
        """Those of what the operator gives; what is added to a gradient of its input is no part of it."""
        own = {GRADIENT + name for name in pair.forward.reads}
        return [name for name in self._reads(pair, (Role.GRADIENT,)) if name.rstrip("'") not in own]

    def _primal(self, pair: Pair) -> list[str]:
        """What the backward reads of the forward; the weight only where a product needs it, not for the penalty."""
        return [
            name
            for name in self._reads(pair, _PRIMAL)
            if self._role(name) is not Role.PARAMETER
            or any(name in one.reads for one in pair.backward if one.phase is Phase.INPUT_GRADIENT)
        ]

    def _is_curved(self, pair: Pair, name: str) -> bool:
        """Whether the backward depends on it otherwise than through the gradient that comes in."""
        role, is_penalised = self._role(name), name.startswith("W") and self.trace.network.l2_penalty > 0
        if role is Role.PARAMETER:
            return not name.startswith("b") and (pair.has_input or is_penalised)
        return role is Role.VALUE and pair.forward.name not in LINEAR

    def _role(self, name: str) -> Role:
        return self.trace.variables[name].role

    # Variables

    def _direction(self, name: str) -> str:
        return self._add(DIRECTION + name, name, Role.DIRECTION)

    def _tangent(self, name: str) -> str:
        return self._add(TANGENT + name, name, Role.TANGENT)

    def _curvature(self, name: str) -> str:
        is_parameter = self._role(name) is Role.PARAMETER
        return self._add(CURVATURE + name, name, Role.PARAMETER_CURVATURE if is_parameter else Role.CURVATURE)

    def _add(self, identity: str, like: str, role: Role) -> str:
        """A variable of the shape, the stage and the layer of another."""
        node: VariableNode = replace(self.trace.variables[like], id=identity, label=identity.split("@")[0], role=role,
                                     is_kept=False)  # fmt: skip
        return self.trace.add(node)
