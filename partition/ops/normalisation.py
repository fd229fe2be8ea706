"""Norms over the features of every example and their gradients, on buffers that the caller gives.

Shapes: B examples, D features, contiguous; weight_D and bias_D.

    x̂ = (x - mean) * r, r = 1 / sqrt(variance + eps)          layer_norm (Ba, Kiros and Hinton 2016)
    x̂ = x * r,          r = 1 / sqrt(mean square + eps)       rms_norm (Zhang and Sennrich 2019)
    n = x̂ * weight + bias

    grad_weight = sum over examples of grad_n ⊙ x̂, grad_bias = sum of grad_n, and with c = grad_n ⊙ weight for each row
    grad_x = r (c - mean(c) - x̂ mean(c ⊙ x̂)); without mean(c) where no mean was subtracted

x is the one tensor kept: x̂ is computed from it again in the backward, by the same operations, hence with the same bits.
Nothing here allocates. Numbers that a product would wrap in a tensor are the `alpha` and `value` of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partition.ops.sums import sum_columns, sum_rows


def standardise(x_BD: Tensor, has_mean: bool, eps: float, out_BD: Tensor, statistics_2B: Tensor) -> None:
    """x̂ from x, in place or not: (B, D) -> (B, D); leaves r, (B,), in the first row of `statistics_2B`.

    Example: `standardise(x_BD, True, 1e-5, torch.empty_like(x_BD), torch.empty(2, B))`.
    """
    r_B, other_B, num_features = statistics_2B[0], statistics_2B[1], x_BD.shape[1]
    centred_BD = x_BD
    if has_mean:
        sum_columns(x_BD, r_B, other_B)
        torch.sub(x_BD, r_B.unsqueeze(1), alpha=1.0 / num_features, out=out_BD)
        centred_BD = out_BD
    torch.linalg.vector_norm(centred_BD, dim=1, out=r_B)
    r_B.mul_(r_B)
    torch.add(other_B.fill_(eps), r_B, alpha=1.0 / num_features, out=r_B)
    torch.rsqrt(r_B, out=r_B)
    torch.mul(centred_BD, r_B.unsqueeze(1), out=out_BD)


def rescale(standardised_BD: Tensor, weight_D: Tensor, bias_D: Tensor | None) -> None:
    """N = x̂ * weight + bias in place: (B, D), (D,), (D,) or None.

    Example: `rescale(standardised_BD, weight_D, None)`.
    """
    if bias_D is None:
        standardised_BD.mul_(weight_D)
    else:
        torch.addcmul(bias_D, standardised_BD, weight_D, out=standardised_BD)


def norm_weight_grad(
    standardised_BD: Tensor,
    grad_n_BD: Tensor,
    is_first: bool,
    grad_weight_D: Tensor,
    product_BD: Tensor,
    sums_D: Tensor,
) -> None:
    """grad_weight = sum of grad_n ⊙ x̂ for the first microbatch of a step, += afterwards; leaves the product.

    (B, D), (B, D) -> (D,) in `grad_weight_D`; `sums_D` is overwritten.

    Example: `norm_weight_grad(standardised_BD, grad_BD, True, torch.empty(D), torch.empty(B, D), torch.empty(D))`.
    """
    torch.mul(grad_n_BD, standardised_BD, out=product_BD)
    sum_rows(product_BD, is_first, grad_weight_D, sums_D)


def norm_input_grad(
    standardised_BD: Tensor,
    grad_BD: Tensor,
    weight_D: Tensor,
    has_mean: bool,
    product_BD: Tensor,
    statistics_3B: Tensor,
) -> None:
    """grad_n becomes grad_x in place: (B, D); `product_BD` is grad_n ⊙ x̂, the first row of the statistics r.

    Example: after `standardise` and `norm_weight_grad`.
    """
    r_B, mean_B, dot_B = statistics_3B
    share = -1.0 / grad_BD.shape[1]
    torch.mv(product_BD, weight_D, out=dot_B)
    if has_mean:
        torch.mv(grad_BD, weight_D, out=mean_B)
    grad_BD.mul_(weight_D)
    grad_BD.addcmul_(standardised_BD, dot_B.unsqueeze(1), value=share)
    if has_mean:
        grad_BD.add_(mean_B.unsqueeze(1), alpha=share)
    grad_BD.mul_(r_B.unsqueeze(1))
