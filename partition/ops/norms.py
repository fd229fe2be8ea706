"""Norms of every example's gradient, from the rows that the backward has at hand anyway.

Shapes: B examples of a microbatch, I features in, O features out, D features of a norm.

The gradient of one example in an affine layer is an outer product, grad_z_n (x_n, 1)^T, so its norm is the product of
two norms of rows. That of a norm over features, n = x̂ ⊙ weight + bias, is the two rows grad_n ⊙ x̂ and grad_n, the
first of which its backward has made to sum it up. Nothing here allocates: results go into buffers of the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor


def affine_example_norms(
    x_BI: Tensor, grad_z_BO: Tensor, one: Tensor | None, norms_B: Tensor, workspace_B: Tensor
) -> None:
    """norms_n = |grad_z_n| sqrt(|x_n|^2 + 1): (B, I), (B, O) -> (B,) in `norms_B`.

    The norm of the gradient of one example's part of the loss in weight and bias together; grad_z carries the 1/N of
    the minibatch's mean, so N norms_n is the norm of the gradient of the example's own loss. `one` is the number 1 as
    a tensor, None where there is no bias; `workspace_B` is overwritten.

    Source: Goodfellow 2015, Efficient Per-Example Gradient Computations.

    Example: `affine_example_norms(x_BI, grad_z_BO, torch.ones(()), torch.empty(B), torch.empty(B))`.
    """
    torch.linalg.vector_norm(x_BI, dim=1, out=workspace_B)
    if one is not None:
        torch.hypot(workspace_B, one, out=workspace_B)
    torch.linalg.vector_norm(grad_z_BO, dim=1, out=norms_B)
    norms_B.mul_(workspace_B)


def norm_example_norms(product_BD: Tensor, grad_n_BD: Tensor | None, statistics_3B: Tensor, norm_out: Tensor) -> None:
    """Norm = root of the sum over examples of |grad_n ⊙ x̂|^2 + |grad_n|^2: (B, D), (B, D) -> () in `norm_out`.

    Of the gradients in weight and bias of a norm; `grad_n_BD` is None where there is no bias. The first row of the
    statistics stays as it is, the others are overwritten.

    Example: `norm_example_norms(product_BD, grad_n_BD, torch.empty(3, B), torch.empty(()))`.
    """
    _, norms_B, biases_B = statistics_3B
    torch.linalg.vector_norm(product_BD, dim=1, out=norms_B)
    if grad_n_BD is not None:
        torch.linalg.vector_norm(grad_n_BD, dim=1, out=biases_B)
        torch.hypot(norms_B, biases_B, out=norms_B)
    torch.linalg.vector_norm(norms_B, out=norm_out)


def weight_grad_norms(
    grad_weight_OI: Tensor, weight_OI: Tensor, l2_penalty: float, norms_O: Tensor, piece: Tensor
) -> None:
    """The norms of the rows of grad_weight - lambda W: (O, I), (O, I) -> (O,), piece by piece.

    What the gradient is without the penalty that rode in the product. `piece` is a buffer of the rows of one piece,
    (P * I,) with any P of at least 1; it is overwritten.

    Example: `weight_grad_norms(grad_weight_OI, weight_OI, 1e-4, torch.empty(O), torch.empty(P * I))`.
    """
    rows = len(piece) // weight_OI.shape[1]
    pieces = [torch.split(tensor, rows) for tensor in (grad_weight_OI, weight_OI, norms_O)]
    for grad_PI, weight_PI, norms_P in zip(*pieces, strict=True):
        difference_PI = piece[: weight_PI.numel()].view_as(weight_PI)
        torch.sub(grad_PI, weight_PI, alpha=l2_penalty, out=difference_PI)
        torch.linalg.vector_norm(difference_PI, dim=1, out=norms_P)
