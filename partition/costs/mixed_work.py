"""Operations and bytes of the operators between two number formats."""

from __future__ import annotations

from partition.costs.block_work import Work, layer_shape
from partition.graph.layers import Layer
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, MixedOperator, WeightProduct
from partition.graph.program import WIDE_ITEMSIZE, Variable


def mixed_operator_work(operator: MixedOperator, rows: int, itemsize: int) -> Work:
    """The work of one operator on `rows` examples; `itemsize` is the narrow format's."""
    match operator:
        case Cast(source, into):
            return Work(0, source.num_bytes(rows, itemsize) + into.num_bytes(rows, itemsize))
        case CastWeights(_, weights):
            num_bytes = weights.num_bytes(rows, itemsize)
            return Work(0, num_bytes + num_bytes // itemsize * WIDE_ITEMSIZE)
        case WeightProduct(layer, _, _, _, product):
            elements = rows * (layer.in_features + layer.out_features)
            flop = 2 * rows * layer.weight_elements + rows * layer.bias_elements
            return Work(flop, elements * itemsize + product.num_bytes(rows, itemsize))
        case AddProduct(layer, product, _):
            # The gradient is read and written.
            elements = layer.parameter_elements
            return Work(elements, product.num_bytes(rows, itemsize) + 2 * elements * WIDE_ITEMSIZE)


def mixed_operator_key(operator: MixedOperator) -> str:
    """What a measured costs file knows an operator between formats by."""
    match operator:
        case Cast(source, into):
            return f"cast {source.columns} {'to sums' if into.is_wide else 'to products'}"
        case CastWeights(layer, weights):
            return f"cast weight {_shape(layer, weights)}"
        case WeightProduct(layer, _, _, _, product):
            return f"weight product {_shape(layer, product)}"
        case AddProduct(layer, product, _):
            return f"added product {_shape(layer, product)}"


def _shape(layer: Layer, variable: Variable) -> str:
    return layer_shape(layer, has_bias=variable.columns != layer.weight_elements)
