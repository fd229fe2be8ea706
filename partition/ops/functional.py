"""The hand-written pairs as functions on ordinary tensors, which `torch.autograd` can differentiate as often as needed.

Shapes: B examples, I features in, O features out, q outputs of the network. Rows are examples.

The three products of an affine layer are closed under differentiation, so every backward below is made of functions of
this file, and so is the backward of that backward:

    function        value                cotangent u: to its first input       to its second input
    affine          z = x Wᵀ             input_grad   u W                      weight_grad  uᵀ x
    input_grad      grad_x = g W         affine       u Wᵀ                     weight_grad  gᵀ u
    weight_grad     grad_W = gᵀ x        affine       x uᵀ    (to g)           input_grad   g u    (to x)
    bias_grad       grad_b = Σ rows g    u in every row
    activate        h = phi(z)           activation_grad  u ⊙ phi'
    activation_grad g_z = g ⊙ phi'       activation_grad  u ⊙ phi'             u ⊙ g ⊙ dphi'/d(what is kept)
    loss            L, grad_o            u_L grad_o + H u_grad                 (with H the Hessian of the loss in o)

Nothing more is kept for this than for a first derivative: what stands between forward and backward, the output h or
grad_o of its own node, takes part in autograd. Without create_graph=True the backward runs the kernels alone.

These allocate what they return and copy gradients that they may not overwrite; a stage calls the pairs themselves.
Source: *Dive into Deep Learning*, backward propagation and exercise 4, second derivatives.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, Keeps, LossRecord
from partition.ops.activations import ACTIVATIONS
from partition.ops.affine import affine as affine_into
from partition.ops.affine import affine_bias_grad, affine_input_grad, affine_weight_grad
from partition.ops.losses import bind_loss, class_vector, summed_loss, summed_weight


class _Affine(Function):
    """z = x Wᵀ + b: (B, I), (O, I), (O,) or None -> (B, O); `x_BI` is contiguous."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        out_BO = x_BI.new_empty(x_BI.shape[0], weight_OI.shape[0])
        affine_into(x_BI, weight_OI, bias_O, out_BO)
        ctx.save_for_backward(x_BI, weight_OI)
        return out_BO

    @staticmethod
    def backward(ctx: Any, grad_z_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_BI, weight_OI = ctx.saved_tensors
        grad_z_BO = grad_z_BO.contiguous()
        grad_x_BI = grad_weight_OI = grad_bias_O = None
        if ctx.needs_input_grad[0]:
            grad_x_BI = _input_grad(grad_z_BO, weight_OI)
        if ctx.needs_input_grad[1]:
            grad_weight_OI = _weight_grad(grad_z_BO, x_BI)
        if ctx.needs_input_grad[2]:
            grad_bias_O = _bias_grad(grad_z_BO)
        return grad_x_BI, grad_weight_OI, grad_bias_O


class _InputGrad(Function):
    """grad_x = grad_z W: (B, O), (O, I) -> (B, I)."""

    @staticmethod
    def forward(ctx: Any, grad_z_BO: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(grad_z_BO, weight_OI)
        return _input_grad_value(grad_z_BO, weight_OI)

    @staticmethod
    def backward(ctx: Any, u_BI: Tensor) -> tuple[Tensor | None, Tensor | None]:
        grad_z_BO, weight_OI = ctx.saved_tensors
        to_grad_z_BO = affine(u_BI, weight_OI) if ctx.needs_input_grad[0] else None
        to_weight_OI = _weight_grad(grad_z_BO, u_BI.contiguous()) if ctx.needs_input_grad[1] else None
        return to_grad_z_BO, to_weight_OI


class _WeightGrad(Function):
    """grad_weight = grad_zᵀ x: (B, O), (B, I) -> (O, I)."""

    @staticmethod
    def forward(ctx: Any, grad_z_BO: Tensor, x_BI: Tensor) -> Tensor:
        ctx.save_for_backward(grad_z_BO, x_BI)
        return _weight_grad_value(grad_z_BO, x_BI)

    @staticmethod
    def backward(ctx: Any, u_OI: Tensor) -> tuple[Tensor | None, Tensor | None]:
        grad_z_BO, x_BI = ctx.saved_tensors
        to_grad_z_BO = affine(x_BI, u_OI) if ctx.needs_input_grad[0] else None
        to_x_BI = _input_grad(grad_z_BO, u_OI) if ctx.needs_input_grad[1] else None
        return to_grad_z_BO, to_x_BI


class _BiasGrad(Function):
    """grad_bias = sum over examples of grad_z: (B, O) -> (O,)."""

    @staticmethod
    def forward(ctx: Any, grad_z_BO: Tensor) -> Tensor:
        ctx.num_rows = grad_z_BO.shape[0]
        return _bias_grad_value(grad_z_BO)

    @staticmethod
    def backward(ctx: Any, u_O: Tensor) -> Tensor:
        return u_O.expand(ctx.num_rows, -1)


class _Activate(Function):
    """An activation that keeps the one tensor its record names; `z_BO` is contiguous."""

    @staticmethod
    def forward(ctx: Any, name: str, z_BO: Tensor) -> Tensor:
        out_BO = torch.empty_like(z_BO)
        ACTIVATIONS[name].forward(z_BO, out_BO)
        ctx.name = name
        ctx.save_for_backward(z_BO if ACTIVATION_RECORDS[name].keeps == Keeps.PRE_ACTIVATION else out_BO)
        return out_BO

    @staticmethod
    def backward(ctx: Any, grad_h_BO: Tensor) -> tuple[None, Tensor]:
        (kept_BO,) = ctx.saved_tensors
        return None, _activation_grad(ctx.name, grad_h_BO, kept_BO)


class _ActivationGrad(Function):
    """grad_z = grad_h ⊙ phi', from what the activation keeps: z, or the output h, which leads back to z by itself."""

    @staticmethod
    def forward(ctx: Any, name: str, grad_h_BO: Tensor, kept_BO: Tensor) -> Tensor:
        ctx.name = name
        ctx.save_for_backward(grad_h_BO, kept_BO)
        return _activation_grad_value(name, grad_h_BO, kept_BO)

    @staticmethod
    def backward(ctx: Any, u_BO: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        grad_h_BO, kept_BO = ctx.saved_tensors
        second = ACTIVATIONS[ctx.name].second
        to_grad_h_BO = to_kept_BO = None
        if ctx.needs_input_grad[1]:
            to_grad_h_BO = _activation_grad(ctx.name, u_BO, kept_BO)
        if ctx.needs_input_grad[2] and second is not None:
            to_kept_BO = u_BO * grad_h_BO * second.expression(kept_BO)
        return None, to_grad_h_BO, to_kept_BO


class _Loss(Function):
    """A loss and its gradient, both computed in the forward; the gradient is an output, to be differentiated again."""

    @staticmethod
    def forward(ctx: Any, record: LossRecord, o_Bq: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ctx.loss = bind_loss(record, _class_vector(record, o_Bq))
        ctx.weight = 1.0 / _summed_weight(record, targets)
        grad_o_Bq = torch.empty_like(o_Bq, memory_format=torch.contiguous_format)
        workspace_B1, value = o_Bq.new_empty(o_Bq.shape[0], record.workspace_columns), o_Bq.new_empty(())
        ctx.loss.forward(o_Bq.contiguous(), targets, ctx.weight, grad_o_Bq, workspace_B1, value)
        ctx.save_for_backward(grad_o_Bq, targets)
        ctx.set_materialize_grads(False)  # a first derivative has no cotangent of the gradient, nor zeros in its place
        return value, grad_o_Bq

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, u_Bq: Tensor | None) -> tuple[None, Tensor | None, None]:
        grad_o_Bq, targets = ctx.saved_tensors
        to_o_Bq = None if grad_loss is None else grad_o_Bq * grad_loss
        if u_Bq is not None:
            hessian_u_Bq = ctx.loss.hessian(grad_o_Bq, targets, ctx.weight, u_Bq)
            to_o_Bq = hessian_u_Bq if to_o_Bq is None else to_o_Bq + hessian_u_Bq
        return None, to_o_Bq, None


def _class_vector(record: LossRecord, o_Bq: Tensor) -> Tensor | None:
    numbers = class_vector(record, o_Bq.shape[1])
    return None if numbers is None else o_Bq.new_tensor(numbers)


def _summed_weight(record: LossRecord, targets: Tensor) -> float:
    return float(len(targets)) if record.class_weights is None else summed_weight(record, targets.cpu().numpy())


def _input_grad_value(grad_z_BO: Tensor, weight_OI: Tensor) -> Tensor:
    grad_x_BI = grad_z_BO.new_empty(grad_z_BO.shape[0], weight_OI.shape[1])
    affine_input_grad(grad_z_BO, weight_OI, grad_x_BI)
    return grad_x_BI


def _weight_grad_value(grad_z_BO: Tensor, x_BI: Tensor) -> Tensor:
    grad_weight_OI = grad_z_BO.new_empty(grad_z_BO.shape[1], x_BI.shape[1])
    affine_weight_grad(x_BI, grad_z_BO, True, grad_weight_OI)
    return grad_weight_OI


def _bias_grad_value(grad_z_BO: Tensor) -> Tensor:
    grad_bias_O = grad_z_BO.new_empty(grad_z_BO.shape[1])
    affine_bias_grad(grad_z_BO, True, grad_bias_O, torch.empty_like(grad_bias_O))
    return grad_bias_O


def _activation_grad_value(name: str, grad_h_BO: Tensor, kept_BO: Tensor) -> Tensor:
    grad_z_BO = grad_h_BO.clone(memory_format=torch.contiguous_format)
    ACTIVATIONS[name].backward(grad_z_BO, kept_BO)
    return grad_z_BO


# In a backward gradients are tracked with create_graph=True only; otherwise a node of its own would be for nothing.


def _input_grad(grad_z_BO: Tensor, weight_OI: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return cast(Tensor, _InputGrad.apply(grad_z_BO, weight_OI))  # type: ignore[no-untyped-call]
    return _input_grad_value(grad_z_BO, weight_OI)


def _weight_grad(grad_z_BO: Tensor, x_BI: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return cast(Tensor, _WeightGrad.apply(grad_z_BO, x_BI))  # type: ignore[no-untyped-call]
    return _weight_grad_value(grad_z_BO, x_BI)


def _bias_grad(grad_z_BO: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return cast(Tensor, _BiasGrad.apply(grad_z_BO))  # type: ignore[no-untyped-call]
    return _bias_grad_value(grad_z_BO)


def _activation_grad(name: str, grad_h_BO: Tensor, kept_BO: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return cast(Tensor, _ActivationGrad.apply(name, grad_h_BO, kept_BO))  # type: ignore[no-untyped-call]
    return _activation_grad_value(name, grad_h_BO, kept_BO)


def affine(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Affine map z = x Wᵀ + b: (B, I), (O, I), (O,) or None -> (B, O), as `torch.nn.functional.linear`.

    Example: `affine(x_BI, weight_OI).sum().backward()`.
    """
    return cast(Tensor, _Affine.apply(x_BI.contiguous(), weight_OI, bias_O))  # type: ignore[no-untyped-call]


def activate(name: str, z_BO: Tensor) -> Tensor:
    """Elementwise h = phi(z), with phi one of `partition.ops.ACTIVATIONS`: any shape to the same shape.

    Example: `activate("gelu", z_BO)`.
    """
    return cast(Tensor, _Activate.apply(name, z_BO.contiguous()))  # type: ignore[no-untyped-call]


def cross_entropy(o_Bq: Tensor, targets_B: Tensor) -> Tensor:
    """Mean over examples of -log softmax(o)[y]: (B, q) logits, (B,) int64 classes -> (), as in torch.

    Errors: IndexError for a class outside 0..q-1 (on the CPU).

    Example: `cross_entropy(o_Bq, targets_B).backward()`.
    """
    return cast(Tensor, _Loss.apply(LOSS_RECORDS["cross_entropy"], o_Bq, targets_B)[0])  # type: ignore[no-untyped-call]


def mean_squared_error(o_Bq: Tensor, targets_Bq: Tensor) -> Tensor:
    """Mean over examples and outputs of (o - y)²: (B, q), (B, q) -> (), as in torch; no gradient in the targets.

    Example: `mean_squared_error(o_Bq, targets_Bq).backward()`.
    """
    return cast(Tensor, _Loss.apply(LOSS_RECORDS["mse"], o_Bq, targets_Bq)[0])  # type: ignore[no-untyped-call]


def loss(record: LossRecord, o_Bq: Tensor, targets: Tensor) -> Tensor:
    """The mean of any loss over the examples, by their class weights where the record has any: (B, q), targets -> ().

    Example: `loss(LOSS_RECORDS["huber"], o_Bq, targets_Bq).backward()`.
    """
    if record.is_imported:
        return summed_loss(record, o_Bq, targets) / len(o_Bq)
    return cast(Tensor, _Loss.apply(record, o_Bq, targets)[0])  # type: ignore[no-untyped-call]
