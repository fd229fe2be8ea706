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
    x_BI: Tensor, grad_z_BO: Tensor, has_bias: bool, workspace_2B: Tensor, norm_out: Tensor
) -> None:
    """Norm = root of the sum over examples of |grad_z_n|^2 (|x_n|^2 + 1): (B, I), (B, O) -> () in `norm_out`.

    Of the gradients of all examples in weight and bias together, the 1 being for the bias; grad_z carries the 1/N of
    the minibatch's mean, so N times it is the norm of the gradients of the examples' own losses. The workspace is
    overwritten. Five calls: on few examples it is their number that takes the time.

    Source: Goodfellow 2015, Efficient Per-Example Gradient Computations.

    Example: `affine_example_norms(x_BI, grad_z_BO, True, torch.empty(2, B), torch.empty(()))`.
    """
    of_biases_B, of_weights_B = workspace_2B.unbind()
    torch.linalg.vector_norm(grad_z_BO, dim=1, out=of_biases_B)
    torch.linalg.vector_norm(x_BI, dim=1, out=of_weights_B)
    of_weights_B.mul_(of_biases_B)
    torch.linalg.vector_norm(workspace_2B if has_bias else of_weights_B, out=norm_out)


def norm_example_norms(product_BD: Tensor, grad_n_BD: Tensor | None, statistics_3B: Tensor, norm_out: Tensor) -> None:
    """Norm = root of the sum over examples of |grad_n ⊙ x̂|^2 + |grad_n|^2: (B, D), (B, D) -> () in `norm_out`.

    Of the gradients in weight and bias of a norm; `grad_n_BD` is None where there is no bias. The first row of the
    statistics stays as it is, the others are overwritten.

    Example: `norm_example_norms(product_BD, grad_n_BD, torch.empty(3, B), torch.empty(()))`.
    """
    _, norms_B, biases_B = statistics_3B.unbind()
    torch.linalg.vector_norm(product_BD, dim=1, out=norms_B)
    if grad_n_BD is not None:
        torch.linalg.vector_norm(grad_n_BD, dim=1, out=biases_B)
    torch.linalg.vector_norm(norms_B if grad_n_BD is None else statistics_3B[1:], out=norm_out)
