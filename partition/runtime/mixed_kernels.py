"""The operators between two number formats meet their kernels, as those of affine layers do in `affine_kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, WeightProduct
from partition.ops import mixed
from partition.ops.sums import sum_rows

if TYPE_CHECKING:
    from partition.runtime.stage import Frame, Stage


def _cast(stage: Stage, instruction: Cast, frame: Frame) -> None:
    del stage
    source, into = instruction
    frame.tensors[into.name].copy_(frame.tensors[source.name])


def _cast_weights(stage: Stage, instruction: CastWeights, frame: Frame) -> None:
    layer, weights = instruction
    of = stage.layers[layer.index]
    mixed.cast_weights(of.weight_OI, of.bias_O, frame.tensors[weights.name], layer)


def _weight_product(stage: Stage, instruction: WeightProduct, frame: Frame) -> None:
    del stage
    layer, x, grad_z, workspace, product = instruction
    product_OI, sums_O = mixed.weights_in(frame.tensors[product.name], layer)
    grad_z_BO = frame.tensors[grad_z.name]
    torch.mm(grad_z_BO.t(), frame.tensors[x.name], out=product_OI)
    if sums_O is not None and workspace is not None:
        sum_rows(grad_z_BO, True, sums_O, frame.tensors[workspace.name])


def _add_product(stage: Stage, instruction: AddProduct, frame: Frame) -> None:
    layer, product, piece = instruction
    of, space = stage.layers[layer.index], frame.tensors[piece.name]
    product_OI, sums_O = mixed.weights_in(frame.tensors[product.name], layer)
    mixed.add_product(product_OI, of.grad_weight_OI, frame.is_first, space)
    if sums_O is not None and of.grad_bias_O is not None:
        mixed.add_product(sums_O, of.grad_bias_O, frame.is_first, space)


MIXED_METHODS: dict[type, Callable[[Stage, Any, Frame], None]] = {
    Cast: _cast,
    CastWeights: _cast_weights,
    WeightProduct: _weight_product,
    AddProduct: _add_product,
}
