"""The affine map and its three gradients, on buffers that the caller gives.

Shapes: B examples of a microbatch, I features in, O features out. Rows are examples, tensors are contiguous.

              weight_OI, bias_O
                     |
    x_BI ------> [ affine ] ------> z_BO            forward
    grad_x_BI <- [ affine ] <------ grad_z_BO       B, the input gradient
                     |
         grad_weight_OI, grad_bias_O                W, the weight gradient, at any later time

Nothing here allocates: every result goes into a buffer of the caller, so that memory can be predicted to the byte.
Functions are called without gradient tracking (`torch.no_grad`, or inside an `autograd.Function`).
Source: *Dive into Deep Learning*, forward propagation, backward propagation and computational graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partition.ops.sums import sum_rows


def affine(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, out_BO: Tensor) -> None:
    """Affine map z = x Wᵀ + b: (B, I), (O, I), (O,) or None -> (B, O), written into `out_BO`.

    Source: z = W x + b of the book, one row per example.

    Example: `affine(x_BI, weight_OI, None, torch.empty(B, O))`.
    """
    if bias_O is None:
        torch.mm(x_BI, weight_OI.t(), out=out_BO)
    else:
        torch.addmm(bias_O, x_BI, weight_OI.t(), out=out_BO)


def affine_input_grad(grad_z_BO: Tensor, weight_OI: Tensor, out_BI: Tensor) -> None:
    """grad_x = grad_z W: (B, O), (O, I) -> (B, I), written into `out_BI`.

    Source: dJ/dh = W2ᵀ dJ/do of the book, one row per example.

    Example: `affine_input_grad(grad_z_BO, weight_OI, torch.empty_like(x_BI))`.
    """
    torch.mm(grad_z_BO, weight_OI, out=out_BI)


def affine_weight_grad(x_BI: Tensor, grad_z_BO: Tensor, is_first: bool, grad_weight_OI: Tensor) -> None:
    """grad_weight = grad_zᵀ x for the first microbatch of a step, grad_weight += grad_zᵀ x afterwards.

    (B, I), (B, O) -> (O, I) in `grad_weight_OI`, whose old value is not read for the first microbatch. The gradient
    lambda W of the penalty is no matter of microbatches: the end of the step adds it.

    Source: dJ/dW = dJ/dz xᵀ of the book, summed over examples.

    Example: `affine_weight_grad(x_BI, grad_z_BO, True, torch.empty(O, I))`.
    """
    if is_first:
        torch.mm(grad_z_BO.t(), x_BI, out=grad_weight_OI)
    else:
        grad_weight_OI.addmm_(grad_z_BO.t(), x_BI)


def affine_bias_grad(grad_z_BO: Tensor, is_first: bool, grad_bias_O: Tensor, workspace_O: Tensor) -> None:
    """grad_bias = sum over examples of grad_z for the first microbatch of a step, += afterwards.

    (B, O) -> (O,) in `grad_bias_O`, whose old value is not read for the first microbatch; `workspace_O` has its shape
    and may be overwritten.

    Source: exercise 2 of the book, dJ/db = dJ/dz. Biases are not penalised.

    Example: `affine_bias_grad(grad_z_BO, True, torch.empty(O), torch.empty(O))`.
    """
    sum_rows(grad_z_BO, is_first, grad_bias_O, workspace_O)
