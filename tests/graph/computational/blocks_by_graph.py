"""Runs the operators of blocks, and their adjoints by torch's derivatives along directions; see `by_graph`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd.functional import jvp, vjp
from torch.nn.functional import silu

from partition.graph.computational import OperatorNode, Phase

EPS = 1e-5
_KINDS = ("layer_norm", "rms_norm", "swiglu", "residual sum", "gradient sum")


def is_of_blocks(operator: OperatorNode) -> bool:
    return any(kind in operator.name for kind in _KINDS)


def layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return rms_norm(x - x.mean(1, keepdim=True), w) + b


def rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + EPS).rsqrt() * w


def gate(a: Tensor, b: Tensor) -> Tensor:
    return silu(a) * b


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": layer_norm, "rms_norm": rms_norm, "swiglu": gate, "residual sum": torch.add,
    "gradient sum": torch.add,
}  # fmt: skip


def compute(operator: OperatorNode, reads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kind = next(kind for kind in _KINDS if kind in operator.name)
    function = FUNCTIONS[kind]
    if operator.phase in (Phase.FORWARD, Phase.RECOMPUTED) or kind == "gradient sum":
        return {operator.writes[0]: function(*reads.values())}
    if kind == "residual sum":
        return _of_sum(operator, reads)
    primal = _primal(operator, reads)
    inputs = tuple(primal.values())
    if operator.phase is Phase.INPUT_GRADIENT:
        (grad,) = (value for name, value in reads.items() if name.startswith("∂"))
        value, grads = vjp(function, inputs, grad)
        found = {f"∂{name}": of for name, of in zip(primal, grads, strict=True)}
        # A gate leaves its value too.
        return {name: found[name.rstrip("'")] if name.startswith("∂") else value for name in operator.writes}
    if operator.phase is Phase.SECOND:
        (curved,) = (value for name, value in reads.items() if name.startswith("H"))
        _, grads = vjp(function, inputs, curved)
        return {f"H{name}": of for name, of in zip(primal, grads, strict=True) if f"H{name}" in operator.writes}
    along = tuple(_along(name, primal[name], reads) for name in primal)
    written = {operator.writes[0]: jvp(function, inputs, along)[1]}
    gradients = [value for name, value in reads.items() if name.startswith("∂")]
    if gradients:
        _, curved_by = jvp(lambda *of: vjp(function, of, gradients[0], create_graph=True)[1], inputs, along)
        found = dict(zip(primal, curved_by, strict=True))
        written |= {name: found[name[1:]] for name in operator.writes if name.startswith("H")}
    return written


def _of_sum(operator: OperatorNode, reads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if operator.phase is Phase.SECOND:
        (curved,) = reads.values()
        return dict.fromkeys(operator.writes, curved)
    return {operator.writes[0]: sum(reads.values(), torch.zeros(()))}


def _primal(operator: OperatorNode, reads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Value, weight and bias: what a bias is does not matter to a derivative, and is not read."""
    found = {name: value for name, value in reads.items() if name[0] in "xhrdnz"}
    if "norm" not in operator.name:
        return dict(sorted(found.items(), key=lambda one: int("".join(filter(str.isdigit, one[0].split("@")[0])))))
    width = next(iter(found.values())).shape[1]
    ones = torch.ones(width, dtype=torch.float64)
    weight = {f"w{operator.layer}": reads.get(f"w{operator.layer}", ones)}
    return found | weight | ({f"b{operator.layer}": torch.zeros_like(ones)} if "layer_norm" in operator.name else {})


def _along(name: str, like: Tensor, reads: Mapping[str, Tensor]) -> Tensor:
    """The direction of a parameter, the change of a value; inputs do not change."""
    return reads.get(f"v{name}", reads.get(f"u{name}", torch.zeros_like(like)))
