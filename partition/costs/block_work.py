"""Floating-point operations and bytes of the operators of blocks; see `partition.costs.work` for how they count."""

from __future__ import annotations

from typing import NamedTuple

from partition.graph.block_operators import (
    Accumulate,
    AddInputGrad,
    BlockOperator,
    Drop,
    Gated,
    GatedGrad,
    Normalise,
    NormGrad,
    Rescale,
)
from partition.graph.layers import Layer, Norm
from partition.graph.program import WIDE_ITEMSIZE, Variable

DRAW_FLOP = 20
"""What it takes to draw one number of a mask and to apply it, in operations."""


class Work(NamedTuple):
    """What one kernel does: floating-point operations and bytes read and written."""

    flop: int
    moved_bytes: int


def block_operator_work(operator: BlockOperator, rows: int, itemsize: int) -> Work:
    """The work of one operator of a block on `rows` examples."""
    match operator:
        case Normalise(norm, _, _, _, wide):
            elements = rows * norm.features
            moved = 2 * elements * itemsize + _beside(norm.parameter_elements, wide, 4 * elements, itemsize)
            return Work((7 if norm.has_mean else 5) * elements, moved)
        case NormGrad(norm, _, _, _, _, _, _, has_input_grad, wide, _, norms):
            elements = rows * norm.features
            flop = (7 if norm.has_mean else 5) + 2 + norm.has_bias + has_input_grad * (9 if norm.has_mean else 6)
            squares = 0 if norms is None else 1 + norm.has_bias  # of the product, and of the gradient for the bias
            flop += 2 * squares
            moved = (4 + has_input_grad + squares) * elements * itemsize
            return Work(flop * elements, moved + _beside(3 * norm.parameter_elements, wide, 4 * elements, itemsize))
        case Rescale(norm, _, wide):
            elements = rows * norm.features
            moved = 2 * elements * itemsize + _beside(norm.parameter_elements, wide, 2 * elements, itemsize)
            return Work(2 * elements, moved)
        case Drop(dropout, _, _, _):
            elements = rows * dropout.features
            return Work(DRAW_FLOP * elements, 4 * elements * itemsize)
        case Gated(gate, _, _, _):
            elements = rows * gate.features
            return Work(14 * elements, 3 * elements * itemsize)
        case GatedGrad(gate, _, _, _, _):
            elements = rows * gate.features
            return Work(33 * elements, 6 * elements * itemsize)
        case AddInputGrad(layer, _, _, _):
            elements = rows * (2 * layer.in_features + layer.out_features) + layer.weight_elements
            return Work(2 * rows * layer.weight_elements, elements * itemsize)
        case Accumulate(source, _):
            num_bytes = source.num_bytes(rows, itemsize)
            return Work(num_bytes // itemsize, 3 * num_bytes)


def _beside(parameters: int, wide: Variable | None, wide_elements: int, itemsize: int) -> int:
    """Bytes of a norm's parameters, and of the elements that it reads and writes of its wide workspaces."""
    return parameters * itemsize if wide is None else (parameters + wide_elements) * WIDE_ITEMSIZE


def block_operator_key(operator: BlockOperator) -> str:
    """What a measured costs file knows an operator of a block by."""
    match operator:
        case Normalise(norm, x, n, _, _):
            return f"{norm_shape(norm)}{' in place' if x is n else ''}"
        case NormGrad(norm, x, standardised, _, _, _, _, has_input_grad, _, _, norms):
            of = "gradient" if has_input_grad else "weight gradient"
            apart, noise = "" if x is standardised else " apart", "" if norms is None else " and example norms"
            return f"{norm_shape(norm)} {of}{apart}{noise}"
        case Rescale(norm, _, _):
            return f"{norm_shape(norm)} rescaled"
        case Drop(dropout, x, out, _):
            return f"dropout {dropout.features}{' in place' if x is out else ''}"
        case Gated(gate, a, _, h):
            return f"swiglu {gate.features}{' in place' if a is h else ''}"
        case GatedGrad(gate, _, _, _, _):
            return f"swiglu gradient {gate.features}"
        case AddInputGrad(layer, _, _, _):
            return f"added input gradient {layer.in_features}x{layer.out_features}"
        case Accumulate(source, _):
            return f"sum {source.columns}"


def layer_shape(layer: Layer, *, has_bias: bool | None = None) -> str:
    """What a measured costs file knows the shape of an affine map by; `has_bias` unless it is as the layer says."""
    has_bias = layer.has_bias if has_bias is None else has_bias
    return f"{layer.in_features}x{layer.out_features}{' bias' if has_bias else ''}"


def norm_shape(norm: Norm) -> str:
    """What a measured costs file knows a norm by."""
    return f"{norm.algorithm} {norm.features}{' bias' if norm.has_bias else ''}"
