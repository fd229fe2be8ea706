"""The backward of the backward: H v for a direction v of the weights, operator by operator.

The backward is a function of x, W and the gradient that comes in, and is differentiated by hand. With the cotangents
uh, vW, vb of the three gradients ∂h (to the layer before), ∂W, ∂b of an affine layer:

    uz  = uh Wᵀ + h vWᵀ + vb        Hh += ∂z vW        HW += ∂zᵀ uh + λ vW

and with that of ∂z = ∂h ⊙ phi'(z):

    uh  = uz ⊙ phi'(z)              Hz += uz ⊙ ∂h ⊙ phi''(z)

So the u run as the forward does, from the first layer to the loss, which turns uo into Ho = loss''(o) uo; then the H
run back as the gradients did, by the operators of the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from partition.errors import PartitionError
from partition.graph.computational.describing import AFFINE
from partition.graph.computational.nodes import Carry, OperatorNode, Phase, Role, VariableNode
from partition.graph.computational.tracing import GRADIENT, LOSS, Trace

TANGENT, DIRECTION, CURVATURE = "u", "v", "H"
_PRIMAL = (Role.VALUE, Role.DATA, Role.PARAMETER)


class _Pair(NamedTuple):
    """An operator of the forward and what the backward does for it."""

    forward: OperatorNode
    backward: tuple[OperatorNode, ...]


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
            Carry(source=self._tangent(one.target), target=self._tangent(one.source))
            for one in reversed(self.trace.backward_carries)
        ]
        carries += [
            Carry(source=self._curvature(one.target), target=self._curvature(one.source))
            for one in reversed(self.trace.forward_carries)
        ]
        return operators, carries

    def _check(self, pairs: list[_Pair]) -> None:
        """Refuse what would lack an operator: only adjoints of operators that name what they are of can be taken."""
        known = {pair.forward.id for pair in pairs} | {LOSS}
        missing = [one.name for one in self.trace.forward if one.id not in known]
        missing += [one.name for one in self.trace.backward if one.of is None and one.phase is not Phase.RECOMPUTED]
        if missing:
            raise PartitionError(
                f"the second-order graph is not known of a network with {missing[0]!r}; take --forward or --backward"
            )

    def _pairs(self) -> Iterator[_Pair]:
        """In the order of the backward."""
        adjoints: dict[str, list[OperatorNode]] = {}
        for one in self.trace.backward:
            if one.of is not None and one.of != LOSS and one.phase is not Phase.RECOMPUTED:
                adjoints.setdefault(one.of, []).append(one)
        for forward in reversed(self.trace.forward):
            if forward.id in adjoints:
                yield _Pair(forward, tuple(adjoints[forward.id]))

    # Operators

    def _double(self, pair: _Pair) -> OperatorNode:
        """The adjoint of what the backward does for one operator."""
        forward, backward = pair
        written = [name for one in backward for name in one.writes]
        gradients = self._reads(pair, (Role.GRADIENT,))
        primal = self._primal(pair)
        has_input = any(one.phase is Phase.INPUT_GRADIENT for one in backward)
        curved = [name for name in forward.reads if self._is_curved(name, has_input)]
        reads = [self._cotangent(name) for name in written] + primal + gradients * bool(has_input)
        writes = [self._tangent(name) for name in gradients] + [self._curvature(name) for name in curved]
        label, formula = self._double_words(pair)
        return self._node(forward, f"backward of the {forward.name} gradient", label, formula, Phase.DOUBLE,
                          (reads, writes))  # fmt: skip

    def _second(self, pair: _Pair) -> OperatorNode:
        """The adjoint of an operator of the forward, on cotangents of the second order."""
        forward, _ = pair
        reads = [self._curvature(name) for name in forward.writes] + self._primal(pair)
        writes = [self._curvature(name) for name in forward.reads if self._role(name) is not Role.DATA]
        label = "×" if forward.name == AFFINE else f"{forward.label}'"
        return self._node(forward, f"second {forward.name} gradient", label, self._second_words(pair), Phase.SECOND,
                          (reads, writes))  # fmt: skip

    def _loss(self) -> OperatorNode:
        loss = next(one for one in self.trace.forward if one.id == LOSS)
        o = loss.reads[0]
        formula = f"Ho = {loss.name}''(o) uo"
        name = f"second derivative of {loss.name}"
        return self._node(loss, name, "ℓ''", formula, Phase.DOUBLE,
                          ([self._tangent(GRADIENT + o), o], [self._curvature(o)]))  # fmt: skip

    def _node(self, forward: OperatorNode, name: str, label: str, formula: str, phase: Phase,
              ends: tuple[list[str], list[str]]) -> OperatorNode:  # fmt: skip
        reads, writes = (tuple(dict.fromkeys(names)) for names in ends)
        place = "" if forward.layer is None else f" {forward.layer}"
        return replace(forward, id=f"{name}{place}", label=label, name=name, formula=formula, phase=phase, reads=reads,
                       writes=writes, of=forward.id)  # fmt: skip

    # What is read

    def _reads(self, pair: _Pair, roles: tuple[Role, ...]) -> list[str]:
        names = [name for one in pair.backward for name in one.reads if self._role(name) in roles]
        return list(dict.fromkeys(names))

    def _primal(self, pair: _Pair) -> list[str]:
        """What the backward reads of the forward; the weight only where a product needs it, not for the penalty."""
        return [
            name
            for name in self._reads(pair, _PRIMAL)
            if self._role(name) is not Role.PARAMETER
            or any(name in one.reads for one in pair.backward if one.phase is Phase.INPUT_GRADIENT)
        ]

    def _is_curved(self, name: str, has_input: bool) -> bool:
        """Whether the backward depends on it otherwise than through the gradient that comes in."""
        role = self._role(name)
        if role is Role.PARAMETER:
            return name.startswith("W") and (has_input or self.trace.network.l2_penalty > 0)
        return role is Role.VALUE

    def _role(self, name: str) -> Role:
        return self.trace.variables[name].role

    # Words

    def _double_words(self, pair: _Pair) -> tuple[str, str]:
        forward, backward = pair
        if forward.label == "φ":
            return "φ''", f"uh = uz ⊙ {forward.name}',  Hz += uz ⊙ ∂h ⊙ {forward.name}''"
        if forward.name != AFFINE:
            return f"{forward.label}''", f"the adjoint of the {forward.name} gradient"
        has_input = any(one.phase is Phase.INPUT_GRADIENT for one in backward)
        z, h = forward.writes[0][0], ("h" if has_input else "x")
        bias = " + vb" if any(name.startswith("b") for name in forward.reads) else ""
        penalty = "λ vW" * (self.trace.network.l2_penalty > 0)
        if not has_input:
            return "×+", f"u{z} = x vWᵀ{bias}" + (f",  HW += {penalty}" if penalty else "")
        weight = f"∂{z}ᵀ uh" + (f" + {penalty}" if penalty else "")
        return "×+", f"u{z} = uh Wᵀ + {h} vWᵀ{bias},  Hh += ∂{z} vW,  HW += {weight}"

    def _second_words(self, pair: _Pair) -> str:
        forward, backward = pair
        if forward.label == "φ":
            return f"Hz += Hh ⊙ {forward.name}'"
        if forward.name != AFFINE:
            return f"the {forward.name} gradient, of H"
        z = forward.writes[0][0]
        has_input = any(one.phase is Phase.INPUT_GRADIENT for one in backward)
        bias = f",  Hb = Σ H{z}" if any(name.startswith("b") for name in forward.reads) else ""
        return (f"Hh += H{z} W,  " if has_input else "") + f"HW += H{z}ᵀ {'h' if has_input else 'x'}{bias}"

    # Variables

    def _cotangent(self, name: str) -> str:
        """Of a gradient: given for a parameter's, computed for any other."""
        if self._role(name) is Role.PARAMETER_GRADIENT:
            return self._add(DIRECTION + name.removeprefix(GRADIENT), name, Role.DIRECTION)
        return self._tangent(name)

    def _tangent(self, name: str) -> str:
        return self._add(TANGENT + name.removeprefix(GRADIENT), name, Role.TANGENT)

    def _curvature(self, name: str) -> str:
        is_parameter = self._role(name) is Role.PARAMETER
        return self._add(CURVATURE + name, name, Role.PARAMETER_CURVATURE if is_parameter else Role.CURVATURE)

    def _add(self, identity: str, like: str, role: Role) -> str:
        """A variable of the shape, the stage and the layer of another."""
        node: VariableNode = replace(self.trace.variables[like], id=identity, label=identity.split("@")[0], role=role,
                                     is_kept=False)  # fmt: skip
        return self.trace.add(node)
