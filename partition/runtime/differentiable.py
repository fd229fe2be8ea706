"""A network operator by operator, each a node of the autograd graph: slower than a stage, differentiable at will."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from partition.graph import Layer, Unit
from partition.graph.layers import Dropout, Gate, Norm, Part
from partition.ops import block_functional, functional
from partition.ops.dropout import MaskKey


def differentiable_forward(units: Sequence[Unit], x_BI: Tensor, parameters: Sequence[Tensor], key: MaskKey) -> Tensor:
    """The output of a network for given parameters, weights before biases: (B, I) -> (B, O)."""
    given, h = iter(parameters), x_BI
    for unit in units:
        y = h
        for part in unit.parts:
            y = _apply(part, y, given, key)
        h = h + y if unit.is_residual else y
    return h


def _apply(part: Part, x: Tensor, given: Iterator[Tensor], key: MaskKey) -> Tensor:
    match part:
        case Layer():
            z = _affine(part, x, given)
            return z if part.activation.is_identity else functional.activate(part.activation.name, z)
        case Norm():
            weight_D, bias_D = next(given), next(given) if part.has_bias else None
            return block_functional.normalise(x, weight_D, bias_D, has_mean=part.has_mean, eps=part.eps)
        case Gate():
            a_BH = _affine(part.gate, x, given)
            return block_functional.gate(a_BH, _affine(part.up, x, given))
        case Dropout():
            return block_functional.drop(x, part.rate, key._replace(dropout=part.index))


def _affine(layer: Layer, x: Tensor, given: Iterator[Tensor]) -> Tensor:
    weight_OI, bias_O = next(given), next(given) if layer.has_bias else None
    return functional.affine(x, weight_OI, bias_O)
