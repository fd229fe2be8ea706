"""The hand-written pairs as functions on ordinary tensors, for `torch.autograd`, which can differentiate them once.

Shapes: B examples, I features in, O features out, q outputs of the network. Rows are examples.

These allocate what they return and copy gradients that they may not overwrite; a stage calls the pairs themselves.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from partition.errors import PartitionError
from partition.graph import ACTIVATION_RECORDS, Keeps
from partition.ops.activations import ACTIVATIONS
from partition.ops.affine import affine as affine_into
from partition.ops.affine import affine_bias_grad, affine_input_grad, affine_weight_grad
from partition.ops.losses import LOSSES


def refuse_second_derivatives() -> None:
    """Stop create_graph=True, called first in every backward; without it no gradient is tracked there.

    Torch's `once_differentiable` is not enough: where the incoming gradient is a constant, as at the loss, it returns a
    constant too, and a penalty on gradients would be left out without a word.
    """
    if torch.is_grad_enabled():
        raise PartitionError(
            "these gradients are written by hand and cannot be differentiated again; "
            "for create_graph=True use the same model in plain torch (`to_torch()`)"
        )


class _Affine(Function):
    """`affine` and its three gradients, each only if it is wanted."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        x_BI = x_BI.contiguous()
        out_BO = x_BI.new_empty(x_BI.shape[0], weight_OI.shape[0])
        affine_into(x_BI, weight_OI, bias_O, out_BO)
        ctx.save_for_backward(x_BI, weight_OI)
        return out_BO

    @staticmethod
    def backward(ctx: Any, grad_z_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        refuse_second_derivatives()
        x_BI, weight_OI = ctx.saved_tensors
        grad_z_BO = grad_z_BO.contiguous()
        grad_x_BI = grad_weight_OI = grad_bias_O = None
        if ctx.needs_input_grad[0]:
            grad_x_BI = torch.empty_like(x_BI)
            affine_input_grad(grad_z_BO, weight_OI, grad_x_BI)
        if ctx.needs_input_grad[1]:
            grad_weight_OI = torch.empty_like(weight_OI)
            affine_weight_grad(x_BI, grad_z_BO, weight_OI, 0.0, True, grad_weight_OI)
        if ctx.needs_input_grad[2]:
            grad_bias_O = grad_z_BO.new_empty(grad_z_BO.shape[1])
            affine_bias_grad(grad_z_BO, True, grad_bias_O, torch.empty_like(grad_bias_O))
        return grad_x_BI, grad_weight_OI, grad_bias_O


class _Activate(Function):
    """An activation that keeps the one tensor its record names."""

    @staticmethod
    def forward(ctx: Any, name: str, z_BO: Tensor) -> Tensor:
        z_BO = z_BO.contiguous()
        out_BO = torch.empty_like(z_BO)
        ACTIVATIONS[name].forward(z_BO, out_BO)
        ctx.name = name
        ctx.save_for_backward(z_BO if ACTIVATION_RECORDS[name].keeps == Keeps.PRE_ACTIVATION else out_BO)
        return out_BO

    @staticmethod
    def backward(ctx: Any, grad_h_BO: Tensor) -> tuple[None, Tensor]:
        refuse_second_derivatives()
        (kept_BO,) = ctx.saved_tensors
        grad_z_BO = grad_h_BO.clone(memory_format=torch.contiguous_format)
        ACTIVATIONS[ctx.name].backward(grad_z_BO, kept_BO)
        return None, grad_z_BO


class _Loss(Function):
    """A loss whose gradient is computed in the forward and scaled in the backward."""

    @staticmethod
    def forward(ctx: Any, name: str, o_Bq: Tensor, targets: Tensor) -> Tensor:
        num_examples, loss = o_Bq.shape[0], o_Bq.new_empty(())
        grad_o_Bq = torch.empty_like(o_Bq, memory_format=torch.contiguous_format)
        workspace_B1 = o_Bq.new_empty(num_examples, 1)
        LOSSES[name].forward(o_Bq, targets, 1.0 / num_examples, grad_o_Bq, workspace_B1, loss)
        ctx.save_for_backward(grad_o_Bq)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[None, Tensor, None]:
        refuse_second_derivatives()
        (grad_o_Bq,) = ctx.saved_tensors
        return None, grad_o_Bq * grad_loss, None


def affine(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Affine map z = x Wᵀ + b: (B, I), (O, I), (O,) or None -> (B, O), as `torch.nn.functional.linear`.

    Example: `affine(x_BI, weight_OI).sum().backward()`.
    """
    return cast(Tensor, _Affine.apply(x_BI, weight_OI, bias_O))  # type: ignore[no-untyped-call]


def activate(name: str, z_BO: Tensor) -> Tensor:
    """Elementwise h = phi(z), with phi one of `partition.ops.ACTIVATIONS`: any shape to the same shape.

    Example: `activate("gelu", z_BO)`.
    """
    return cast(Tensor, _Activate.apply(name, z_BO))  # type: ignore[no-untyped-call]


def cross_entropy(o_Bq: Tensor, targets_B: Tensor) -> Tensor:
    """Mean over examples of -log softmax(o)[y]: (B, q) logits, (B,) int64 classes -> (), as in torch.

    Errors: IndexError for a class outside 0..q-1 (on the CPU).

    Example: `cross_entropy(o_Bq, targets_B).backward()`.
    """
    return cast(Tensor, _Loss.apply("cross_entropy", o_Bq, targets_B))  # type: ignore[no-untyped-call]


def mean_squared_error(o_Bq: Tensor, targets_Bq: Tensor) -> Tensor:
    """Mean over examples and outputs of (o - y)²: (B, q), (B, q) -> (), as in torch; no gradient in the targets.

    Example: `mean_squared_error(o_Bq, targets_Bq).backward()`.
    """
    return cast(Tensor, _Loss.apply("mse", o_Bq, targets_Bq))  # type: ignore[no-untyped-call]
