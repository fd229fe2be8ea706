"""The operators that stand between two number formats; variables as in `partition.graph.program`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from partition.graph.layers import Layer

if TYPE_CHECKING:
    from partition.graph.program import Variable


class Cast(NamedTuple):
    """Into = source, rounded to the nearest number of its format."""

    source: Variable
    into: Variable


class CastWeights(NamedTuple):
    """Weight, and bias behind it where there is room, in the compute format."""

    layer: Layer
    weights: Variable


class WeightProduct(NamedTuple):
    """Product = grad_z.T @ x, and the column sums of grad_z behind it where there is a bias, in the compute format."""

    layer: Layer
    x: Variable
    grad_z: Variable
    workspace: Variable | None
    product: Variable


class AddProduct(NamedTuple):
    """grad_weight and grad_bias += product, in the parameters' format, a piece at a time."""

    layer: Layer
    product: Variable
    piece: Variable


MixedOperator = Cast | CastWeights | WeightProduct | AddProduct
