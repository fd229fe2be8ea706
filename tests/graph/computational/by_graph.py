"""Runs a graph: every operator gets what its edges bring and nothing else, so that a missing edge is an error.

Shapes: B examples, I features in, O features out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu

from partition.graph.computational import ComputationalGraph, OperatorNode, Phase
from tests.graph.computational import blocks_by_graph as blocks

PHI = {"gelu": gelu, "tanh": torch.tanh}


def derivative(phi: Any, z_BO: Tensor, order: int) -> Tensor:
    """Derivative of phi: phi' or phi'' of every element."""
    value = z_BO.detach().requires_grad_(True)
    result = phi(value)
    for _ in range(order):
        (result,) = torch.autograd.grad(result.sum(), value, create_graph=True)
    return result.detach()


def run(graph: ComputationalGraph, given: Mapping[str, Tensor], penalty: float = 0.0) -> dict[str, Tensor]:
    """All variables of a graph, from those that no operator of it writes; contributions to one variable are added."""
    values = dict(given)
    computed: set[str] = set()
    copies = {carry.source: carry.target for carry in graph.carries}
    for operator in graph.operators:
        reads = {name: values[name] for name in operator.reads}
        written = _compute(operator, reads, penalty)
        assert set(written) == set(operator.writes), operator.id
        for name, value in written.items():
            values[name] = (
                values[name] + value if name in computed and operator.phase is not Phase.RECOMPUTED else value
            )
            computed.add(name)
        for source, target in copies.items():
            if source in values:
                values[target] = values[source]
                # What arrives on a boundary is complete.
                computed.add(target)
    return values


def _compute(operator: OperatorNode, reads: Mapping[str, Tensor], penalty: float) -> dict[str, Tensor]:
    if blocks.is_of_blocks(operator):
        return blocks.compute(operator, reads)
    if operator.name == "added input gradient":
        grad_z, grad_x, weight = reads.values()
        return {operator.writes[0]: grad_z @ weight + grad_x}
    return _RULES[operator.phase](operator, reads, penalty)


def _of(reads: Mapping[str, Tensor], prefix: str) -> Tensor:
    return next(value for name, value in reads.items() if name.startswith(prefix))


def _into(operator: OperatorNode, *prefixes: str) -> str:
    return next(name for name in operator.writes if name.startswith(prefixes))


def _input(reads: Mapping[str, Tensor]) -> Tensor:
    return next(value for name, value in reads.items() if name[0] in "xhnrd")


def _forward(operator: OperatorNode, reads: Mapping[str, Tensor], penalty: float) -> dict[str, Tensor]:
    (to,) = operator.writes
    if operator.name == "affine":
        return {to: _input(reads) @ _of(reads, "W").T + _of(reads, "b")}
    if operator.name in PHI:
        return {to: PHI[operator.name](*reads.values())}
    if operator.name == "penalty":
        return {to: torch.stack([penalty / 2 * weight.square().sum() for weight in reads.values()]).sum()}
    if operator.name == "objective":
        return {to: torch.stack(list(reads.values())).sum()}
    return {to: cross_entropy(reads["o"], reads["y"])}


def _backward(operator: OperatorNode, reads: Mapping[str, Tensor], _: float) -> dict[str, Tensor]:
    if operator.id == "objective gradient":
        return dict.fromkeys(operator.writes, reads["∂J"])
    (to,) = operator.writes
    if operator.of == "loss":
        o = reads["o"].detach().requires_grad_(True)
        cross_entropy(o, reads["y"]).backward()
        assert o.grad is not None
        return {to: o.grad * reads["∂L"]}
    if operator.name == "input gradient":
        return {to: _of(reads, "∂") @ _of(reads, "W")}
    phi = PHI[operator.name.split()[0]]
    return {to: _of(reads, "∂h") * derivative(phi, _of(reads, "z"), 1)}


def _weight(operator: OperatorNode, reads: Mapping[str, Tensor], penalty: float) -> dict[str, Tensor]:
    grad_BO = next(value for name, value in reads.items() if name.startswith("∂") and name != "∂s")
    decay = penalty * reads["∂s"] * _of(reads, "W") if penalty else 0.0
    return {_into(operator, "∂W"): grad_BO.T @ _input(reads) + decay, _into(operator, "∂b"): grad_BO.sum(0)}


def _double(operator: OperatorNode, reads: Mapping[str, Tensor], penalty: float) -> dict[str, Tensor]:
    if operator.of == "loss":
        o_Bq, u_Bq = reads["o"], reads["uo"]
        p_Bq = o_Bq.softmax(1)
        return {"Ho": p_Bq * (u_Bq - (p_Bq * u_Bq).sum(1, keepdim=True)) / len(o_Bq)}
    if operator.label == "φ''":
        phi = PHI[operator.name.split()[3]]
        z_BO, u_BO = _of(reads, "z"), _of(reads, "uz")
        return {
            _into(operator, "u"): u_BO * derivative(phi, z_BO, 1),
            _into(operator, "Hz"): u_BO * _of(reads, "∂h") * derivative(phi, z_BO, 2),
        }
    v_OI = _of(reads, "vW")
    written = {_into(operator, "u"): _input(reads) @ v_OI.T + _of(reads, "vb")}
    has_input = any(name.startswith("u") for name in reads)
    if has_input:
        written[_into(operator, "u")] = written[_into(operator, "u")] + _of(reads, "u") @ _of(reads, "W").T
        written[_into(operator, "Hh", "Hn", "Hr")] = _of(reads, "∂") @ v_OI
    if has_input or penalty:
        crossed = _of(reads, "∂").T @ _of(reads, "u") if has_input else 0.0
        written[_into(operator, "HW")] = crossed + penalty * v_OI
    return written


def _second(operator: OperatorNode, reads: Mapping[str, Tensor], _: float) -> dict[str, Tensor]:
    if operator.label == "φ'":
        phi = PHI[operator.name.split()[1]]
        return {_into(operator, "Hz"): _of(reads, "Hh") * derivative(phi, _of(reads, "z"), 1)}
    curved_BO = next(iter(reads.values()))
    written = {_into(operator, "HW"): curved_BO.T @ _input(reads), _into(operator, "Hb"): curved_BO.sum(0)}
    if any(name.startswith(("Hh", "Hn", "Hr")) for name in operator.writes):
        written[_into(operator, "Hh", "Hn", "Hr")] = curved_BO @ _of(reads, "W")
    return written


_RULES = {
    Phase.FORWARD: _forward,
    Phase.RECOMPUTED: _forward,
    Phase.INPUT_GRADIENT: _backward,
    Phase.WEIGHT_GRADIENT: _weight,
    Phase.DOUBLE: _double,
    Phase.SECOND: _second,
}
