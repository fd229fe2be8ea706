"""The pairs of blocks as functions on ordinary tensors, which `torch.autograd` can differentiate as often as needed.

Shapes: B examples, D features, H columns of a gate. Rows are examples.

A first derivative runs the kernels of the stages. With create_graph=True the backward is the same formula written with
differentiable operators, from the one tensor that is kept, so that it can be differentiated again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from partition.ops import normalisation as norms
from partition.ops.dropout import LEVELS, MaskKey, draw_mask, threshold
from partition.ops.functional import activate
from partition.ops.sums import sum_rows

Grads = tuple[Tensor, Tensor, Tensor | None]


class _Normalise(Function):
    """n = x̂ * weight + bias; keeps x."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, weight_D: Tensor, bias_D: Tensor | None, has_mean: bool, eps: float) -> Tensor:
        out_BD, statistics_2B = torch.empty_like(x_BD), x_BD.new_empty(2, x_BD.shape[0])
        norms.standardise(x_BD, has_mean, eps, out_BD, statistics_2B)
        norms.rescale(out_BD, weight_D, bias_D)
        ctx.save_for_backward(x_BD, weight_D)
        ctx.has_bias, ctx.has_mean, ctx.eps = bias_D is not None, has_mean, eps
        return out_BD

    @staticmethod
    def backward(ctx: Any, grad_n_BD: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grads = _differentiable_norm_grads if torch.is_grad_enabled() else _norm_grads
        x_BD, weight_D = ctx.saved_tensors
        grad_x_BD, grad_weight_D, grad_bias_D = grads(ctx, x_BD, weight_D, grad_n_BD)
        return grad_x_BD, grad_weight_D, grad_bias_D if ctx.has_bias else None, None, None


def _norm_grads(ctx: Any, x_BD: Tensor, weight_D: Tensor, grad_n_BD: Tensor) -> Grads:
    grad_BD = grad_n_BD.clone(memory_format=torch.contiguous_format)
    standardised_BD, product_BD = torch.empty_like(x_BD), torch.empty_like(x_BD)
    statistics_3B, sums_D = x_BD.new_empty(3, x_BD.shape[0]), torch.empty_like(weight_D)
    grad_weight_D, grad_bias_D = torch.empty_like(weight_D), torch.empty_like(weight_D)
    norms.standardise(x_BD, ctx.has_mean, ctx.eps, standardised_BD, statistics_3B)
    norms.norm_weight_grad(standardised_BD, grad_BD, True, grad_weight_D, product_BD, sums_D)
    sum_rows(grad_BD, True, grad_bias_D, sums_D)
    norms.norm_input_grad(standardised_BD, grad_BD, weight_D, ctx.has_mean, product_BD, statistics_3B)
    return grad_BD, grad_weight_D, grad_bias_D


def _differentiable_norm_grads(ctx: Any, x_BD: Tensor, weight_D: Tensor, grad_n_BD: Tensor) -> Grads:
    centred_BD = x_BD - x_BD.mean(1, keepdim=True) if ctx.has_mean else x_BD
    r_B1 = (centred_BD.square().mean(1, keepdim=True) + ctx.eps).rsqrt()
    standardised_BD, c_BD = centred_BD * r_B1, grad_n_BD * weight_D
    inner_BD = c_BD - standardised_BD * (c_BD * standardised_BD).mean(1, keepdim=True)
    if ctx.has_mean:
        inner_BD = inner_BD - c_BD.mean(1, keepdim=True)
    return r_B1 * inner_BD, (grad_n_BD * standardised_BD).sum(0), grad_n_BD.sum(0)


def normalise(
    x_BD: Tensor, weight_D: Tensor, bias_D: Tensor | None = None, *, has_mean: bool = True, eps: float = 1e-5
) -> Tensor:
    """layer_norm with a mean, rms_norm without: (B, D), (D,), (D,) or None -> (B, D), as in torch.

    Example: `normalise(x_BD, torch.ones(D), torch.zeros(D))`.
    """
    found = _Normalise.apply(x_BD.contiguous(), weight_D, bias_D, has_mean, eps)  # type: ignore[no-untyped-call]
    return cast(Tensor, found)


def gate(a_BH: Tensor, b_BH: Tensor) -> Tensor:
    """silu(a) ⊙ b: (B, H), (B, H) -> (B, H).

    Example: `gate(a_BH, b_BH)`.
    """
    return activate("silu", a_BH) * b_BH


def drop(x_BD: Tensor, rate: float, key: MaskKey) -> Tensor:
    """X ⊙ keep / (1 - rate), with the mask that `partition.ops.dropout` draws for the key: (B, D) -> (B, D).

    Example: `drop(x_BD, 0.1, MaskKey(0, 1, 0, 0))`.
    """
    num_rows, num_features = x_BD.shape
    kept = torch.from_numpy(draw_mask(key, num_rows, num_features, rate)).to(x_BD.device)
    return x_BD * kept * (LEVELS / (LEVELS - threshold(rate)))
