"""Floating-point operations and bytes of the operators of a Hessian-vector product through blocks."""

from __future__ import annotations

from partition.costs.block_work import norm_shape
from partition.graph.activations import ACTIVATION_RECORDS
from partition.graph.layers import Norm
from partition.graph.pair_operators import (
    BlockPairOperator,
    PairAccumulate,
    PairAddInputGrad,
    PairGated,
    PairGatedGrad,
    PairLoad,
    PairNormalise,
    PairNormGrad,
    PairRescale,
)

_SILU = ACTIVATION_RECORDS["silu"]


def block_pair_work(operator: BlockPairOperator, rows: int, itemsize: int) -> tuple[int, int]:
    """Operations of one operator on `rows` examples, and bytes read and written."""
    match operator:
        case PairLoad(into):
            return 0, 2 * into.num_bytes(rows, itemsize)
        case PairNormalise(norm, _, _, _):
            elements = rows * norm.features
            return (_standardise_flop(norm) + 6) * elements, (4 * elements + 2 * norm.parameter_elements) * itemsize
        case PairNormGrad(norm, _, _, _, _, _, _, has_input_grad):
            elements = rows * norm.features
            flop = _standardise_flop(norm) + 4 + norm.has_bias + has_input_grad * (26 if norm.has_mean else 22)
            return flop * elements, ((8 + 2 * has_input_grad) * elements + 4 * norm.parameter_elements) * itemsize
        case PairRescale(norm, _):
            elements = rows * norm.features
            return 6 * elements, (4 * elements + 2 * norm.parameter_elements) * itemsize
        case PairGated(gate, _, _, _):
            elements = rows * gate.features
            return (_SILU.forward_flop + _SILU.backward_flop + 4) * elements, 6 * elements * itemsize
        case PairGatedGrad(gate, _, _, _, _, workspaces):
            elements = rows * gate.features
            flop = _SILU.forward_flop + 3 * _SILU.backward_flop + _SILU.second_flop + 13
            return flop * elements, (12 + 2 * len(workspaces)) * elements * itemsize
        case PairAddInputGrad(layer, _, _):
            elements = rows * (2 * layer.in_features + layer.out_features) + layer.weight_elements
            return 6 * rows * layer.weight_elements, 3 * elements * itemsize
        case PairAccumulate(source, _):
            num_bytes = source.num_bytes(rows, itemsize)
            return num_bytes // itemsize, 3 * num_bytes


def _standardise_flop(norm: Norm) -> int:
    """Of x̂ and Rx̂, for each number."""
    return 12 if norm.has_mean else 8


def block_pair_key(operator: BlockPairOperator) -> str:
    """What a costs file would know an operator by."""
    match operator:
        case PairLoad(into):
            return f"load pair {into.columns}"
        case PairNormalise(norm, x, n, _):
            return f"{norm_shape(norm)} pair{' in place' if x is n else ''}"
        case PairNormGrad(norm, x, standardised, _, _, _, _, has_input_grad):
            of = "gradient" if has_input_grad else "weight gradient"
            return f"{norm_shape(norm)} {of} pair{'' if x is standardised else ' apart'}"
        case PairRescale(norm, _):
            return f"{norm_shape(norm)} rescaled pair"
        case PairGated(gate, _, _, _):
            return f"swiglu pair {gate.features}"
        case PairGatedGrad(gate, _, _, _, _, _):
            return f"swiglu gradient pair {gate.features}"
        case PairAddInputGrad(layer, _, _):
            return f"added input gradient pair {layer.in_features}x{layer.out_features}"
        case PairAccumulate(source, _):
            return f"sum pair {source.columns}"
