"""Floating-point operations and bytes of the operators of a Hessian-vector product, each of a variable and its tangent.

    products of B x I x O        F    I    W    of the first layer    F    I    W
    gradient                     1    1    1                          1    -    1
    Hessian-vector product       3    3    2                          2    -    1

So a Hessian-vector product costs 8/3 of a gradient's products where layers are many, whatever their widths.
"""

from __future__ import annotations

from partition.costs.block_pairs import block_pair_key, block_pair_work
from partition.costs.block_work import layer_shape
from partition.graph import LossRecord
from partition.graph.pair_operators import (
    Pair,
    PairActivate,
    PairActivationGrad,
    PairAffine,
    PairInputGrad,
    PairLoss,
    PairOperator,
    PairWeightGrad,
)


def pair_work(operator: PairOperator, rows: int, itemsize: int, loss: LossRecord) -> tuple[int, int]:
    """Operations of one operator on `rows` examples, and bytes read and written."""
    match operator:
        case PairAffine(layer, x, _):
            # The product with V reads the value of x and adds to the tangent of z.
            elements = rows * (layer.in_features + layer.out_features) + layer.parameter_elements
            products = 3 if isinstance(x, Pair) else 2
            return products * 2 * rows * layer.weight_elements, products * elements * itemsize
        case PairInputGrad(layer, _, _):
            elements = rows * (layer.in_features + layer.out_features) + layer.weight_elements
            return 6 * rows * layer.weight_elements, 3 * elements * itemsize
        case PairWeightGrad(layer, x, _, _):
            products = 2 if isinstance(x, Pair) else 1
            elements = products * rows * (layer.in_features + layer.out_features) + 2 * layer.parameter_elements
            flop = products * 2 * rows * layer.weight_elements + rows * layer.bias_elements
            return flop, elements * itemsize
        case PairActivate(layer, _, _, _):
            elements = rows * layer.out_features
            return (layer.activation.forward_flop + layer.activation.backward_flop) * elements, 5 * elements * itemsize
        case PairActivationGrad(layer, _, _, workspaces):
            elements = rows * layer.out_features
            passes = 6 + (4 + 2 * len(workspaces) if workspaces else 0)
            flop = 2 * layer.activation.backward_flop + layer.activation.second_flop
            return flop * elements, passes * elements * itemsize
        case PairLoss(o, targets, _, _, _, _):
            flop = (loss.flop + loss.second_flop) * rows * (o.columns or 1)
            return flop, 4 * o.num_bytes(rows, itemsize) + targets.num_bytes(rows, itemsize)
        case _:
            return block_pair_work(operator, rows, itemsize)


def pair_key(operator: PairOperator, loss: LossRecord) -> str:
    """What a costs file would know an operator by."""
    match operator:
        case PairAffine(layer, x, _):
            return f"affine {'pair' if isinstance(x, Pair) else 'first'} {layer_shape(layer)}"
        case PairInputGrad(layer, _, _):
            return f"input gradient pair {layer_shape(layer)}"
        case PairWeightGrad(layer, x, _, _):
            return f"weight gradient {'pair' if isinstance(x, Pair) else 'first'} {layer_shape(layer)}"
        case PairActivate(layer, z, h, _):
            return f"{layer.activation.name} pair {layer.out_features}{' in place' if z is h else ''}"
        case PairActivationGrad(layer, _, _, _):
            return f"{layer.activation.name} gradient pair {layer.out_features}"
        case PairLoss(o, _, _, _, _, _):
            return f"{loss.name} pair {o.columns}"
        case _:
            return block_pair_key(operator)
