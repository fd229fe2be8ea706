"""The operators of blocks meet their kernels, as those of affine layers do in `affine_kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from partition.graph.block_operators import (
    Accumulate,
    AddInputGrad,
    Drop,
    Gated,
    GatedGrad,
    Normalise,
    NormGrad,
    Rescale,
)
from partition.ops import dropout as masks
from partition.ops import gate as gates
from partition.ops import normalisation as norms
from partition.ops.norms import norm_example_norms
from partition.ops.sums import sum_rows

if TYPE_CHECKING:
    from partition.runtime.parameters import Parameters
    from partition.runtime.stage import Frame, Stage


def _normalise(stage: Stage, instruction: Normalise, frame: Frame) -> None:
    norm, x, n, statistics, wide = instruction
    of, x_BD, n_BD = stage.layers[norm.index], frame.tensors[x.name], frame.tensors[n.name]
    statistics_2B = frame.tensors[statistics.name].view(2, -1)
    if wide is None:
        norms.standardise(x_BD, norm.has_mean, norm.eps, n_BD, statistics_2B)
        norms.rescale(n_BD, of.weight_OI, of.bias_O)
    else:
        wide_BD = frame.tensors[wide.name].copy_(x_BD)
        norms.standardise(wide_BD, norm.has_mean, norm.eps, wide_BD, statistics_2B)
        _rescale_rounded(n_BD.copy_(wide_BD), wide_BD, of)


def _rescale_rounded(n_BD: Tensor, wide_BD: Tensor, of: Parameters) -> None:
    """N from x̂ in place by way of a wide workspace: the same bits whether x̂ was rounded just now or in the backward."""
    norms.rescale(wide_BD.copy_(n_BD), of.weight_OI, of.bias_O)
    n_BD.copy_(wide_BD)


def _norm_grad(stage: Stage, instruction: NormGrad, frame: Frame) -> None:
    norm, *variables, has_input_grad, wide, wide_grad, noise = instruction
    x_BD, standardised_BD, grad_BD, product_BD, statistics, sums_D = (frame.tensors[one.name] for one in variables)
    narrow = (standardised_BD, grad_BD)
    if wide is not None and wide_grad is not None:
        x_BD, grad_BD = frame.tensors[wide.name].copy_(x_BD), frame.tensors[wide_grad.name].copy_(grad_BD)
        standardised_BD = x_BD
    of, statistics_3B = stage.layers[norm.index], statistics.view(3, -1)
    norms.standardise(x_BD, norm.has_mean, norm.eps, standardised_BD, statistics_3B)
    norms.norm_weight_grad(standardised_BD, grad_BD, frame.is_first, of.grad_weight_OI, product_BD, sums_D)
    if of.grad_bias_O is not None:
        sum_rows(grad_BD, frame.is_first, of.grad_bias_O, sums_D)
    if noise is not None:
        grad_of_bias_BD = None if of.grad_bias_O is None else grad_BD
        norm_example_norms(product_BD, grad_of_bias_BD, statistics_3B, stage.norm_of(norm, frame))
    if has_input_grad:
        norms.norm_input_grad(standardised_BD, grad_BD, of.weight_OI, norm.has_mean, product_BD, statistics_3B)
    if wide is not None:
        for values_BD, wide_BD in zip(narrow, (standardised_BD, grad_BD), strict=True):
            values_BD.copy_(wide_BD)


def _rescale(stage: Stage, instruction: Rescale, frame: Frame) -> None:
    norm, n, wide = instruction
    of, n_BD = stage.layers[norm.index], frame.tensors[n.name]
    if wide is None:
        norms.rescale(n_BD, of.weight_OI, of.bias_O)
    else:
        _rescale_rounded(n_BD, frame.tensors[wide.name], of)


def _drop(stage: Stage, instruction: Drop, frame: Frame) -> None:
    dropout, x, out, mask = instruction
    key = masks.MaskKey(stage.seed, frame.step, dropout.index, frame.first_example)
    masks.drop(frame.tensors[x.name], dropout.rate, key, frame.tensors[out.name], frame.tensors[mask.name])


def _gated(stage: Stage, instruction: Gated, frame: Frame) -> None:
    del stage
    _, a, b, h = instruction
    gates.gated(frame.tensors[a.name], frame.tensors[b.name], frame.tensors[h.name])


def _gated_grad(stage: Stage, instruction: GatedGrad, frame: Frame) -> None:
    del stage
    _, *variables = instruction
    gates.gated_grad(*(frame.tensors[one.name] for one in variables))


def _add_input_grad(stage: Stage, instruction: AddInputGrad, frame: Frame) -> None:
    layer, grad_z, grad_x, weights = instruction
    weight_OI, _ = stage.weights_of(layer, weights, frame)
    grad_x_BI = frame.tensors[grad_x.name]
    torch.addmm(grad_x_BI, frame.tensors[grad_z.name], weight_OI, out=grad_x_BI)


def _accumulate(stage: Stage, instruction: Accumulate, frame: Frame) -> None:
    del stage
    source, into = instruction
    frame.tensors[into.name].add_(frame.tensors[source.name])


BLOCK_METHODS: dict[type, Callable[[Stage, Any, Frame], None]] = {
    Normalise: _normalise,
    NormGrad: _norm_grad,
    Rescale: _rescale,
    Drop: _drop,
    Gated: _gated,
    GatedGrad: _gated_grad,
    AddInputGrad: _add_input_grad,
    Accumulate: _accumulate,
}
