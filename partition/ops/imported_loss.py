"""A loss function of the user's, by import path, with its gradient by automatic differentiation.

    function(outputs, targets) -> the mean over the examples, a number, or the loss of each example, (B,)

Both give the loss of a minibatch exactly, whatever the microbatches: a mean counts as often as it has examples. What
automatic differentiation allocates is not taken from the device; the plan leaves room for it (`model.loss_columns`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from partition.data.import_path import import_path
from partition.errors import PartitionError
from partition.ops.loss_protocols import Loss

Function = Callable[[Tensor, Tensor], Any]


@cache
def import_function(path: str) -> Function:
    """The function at package.module:name. Raises PartitionError where there is none."""
    try:
        found = import_path(path)
    except (Exception, SystemExit) as error:
        raise PartitionError(f"model.loss: {path} cannot be imported: {_describe(error)}; correct the path") from None
    if not callable(found):
        raise PartitionError(f"model.loss: {path} is of type {type(found).__name__}; name a function")
    function: Function = found
    return function


def summed(path: str, o_Bq: Tensor, targets: Tensor) -> Tensor:
    """The sum over the examples of the user's loss. Raises PartitionError for what is neither a mean nor (B,)."""
    function = import_function(path)
    try:
        value = function(o_Bq, targets)
    except (Exception, SystemExit) as error:
        shapes = f"outputs {tuple(o_Bq.shape)} and targets {tuple(targets.shape)}"
        raise PartitionError(f"model.loss: {path} fails on {shapes}: {_describe(error)}; correct it") from error
    if not isinstance(value, Tensor) or tuple(value.shape) not in ((), (o_Bq.shape[0],)):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise PartitionError(
            f"model.loss: {path} gives {shape} for {o_Bq.shape[0]} examples; return their mean, or one number for each"
        )
    return value.sum() if value.dim() else value * o_Bq.shape[0]


def _differentiated(
    path: str, o_Bq: Tensor, targets: Tensor, weight: float, *, create_graph: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs as what is differentiated by, weight times the summed loss of them, and its gradient."""
    leaf_Bq = o_Bq.detach().requires_grad_()
    total = summed(path, leaf_Bq, targets) * weight
    if not total.requires_grad:
        raise PartitionError(
            f"model.loss: {path} does not depend on the outputs, or has no derivative (a whole number, detach, "
            "no_grad); compute it from the outputs by torch's operations"
        )
    try:
        (grad_Bq,) = torch.autograd.grad(total, leaf_Bq, create_graph=create_graph)
    except RuntimeError as error:
        raise PartitionError(f"model.loss: {path} cannot be differentiated: {_describe(error)}; correct it") from error
    return leaf_Bq, total, grad_Bq


def imported_loss(path: str) -> Loss:
    """The user's function in the form of the losses of this project."""

    def forward(
        o_Bq: Tensor, targets: Tensor, weight: float, grad_o_Bq: Tensor, workspace_B1: Tensor | None, loss_out: Tensor
    ) -> None:
        del workspace_B1
        with torch.enable_grad():
            _, total, grad_Bq = _differentiated(path, o_Bq, targets, weight)
        grad_o_Bq.copy_(grad_Bq)
        loss_out.copy_(total.detach())

    def hessian(grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor) -> Tensor:
        del grad_o_Bq, targets, weight, u_Bq
        raise PartitionError(
            f"model.loss: the Hessian of {path} cannot be had from its gradient; use `functional.loss`"
        )

    def tangent(
        o_Bq: Tensor,
        targets: Tensor,
        weight: float,
        tangent_Bq: Tensor,
        workspace_Bq: Tensor | None,
        workspace_B1: Tensor | None,
        number: Tensor,
    ) -> None:
        del workspace_Bq, workspace_B1, number
        with torch.enable_grad():
            leaf_Bq, _, grad_Bq = _differentiated(path, o_Bq, targets, weight, create_graph=True)
            if not grad_Bq.requires_grad:  # piecewise linear
                tangent_Bq.zero_()
                return
            (product_Bq,) = torch.autograd.grad(grad_Bq, leaf_Bq, tangent_Bq.clone())
        tangent_Bq.copy_(product_Bq)

    return Loss(name=path, forward=forward, hessian=hessian, tangent=tangent)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
