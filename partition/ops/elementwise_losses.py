"""Losses of every output on its own, mean over outputs as torch has them, on buffers that the caller gives.

Shapes: B examples of a microbatch, q outputs. Nothing here allocates but the Hessians, which are for autograd.
Multiplying by a Python number would (torch wraps the number in a tensor), so numbers are first put into the workspace.
Source: *Dive into Deep Learning*, dJ/do = dL/do; Huber 1964.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partition.ops.sums import sum_rows

aten = torch.ops.aten


def mean_squared_error(
    o_Bq: Tensor, targets: Tensor, weight: float, grad_o_Bq: Tensor, workspace_B1: Tensor | None, loss_out: Tensor
) -> None:
    """L = weight/q * sum of (o - y)² and grad_o = 2 weight/q * (o - y): the mean over examples and outputs, as torch.

    (B, q) outputs, (B, q) targets -> (B, q) in `grad_o_Bq`, which may be `o_Bq` itself, and () in `loss_out`;
    `workspace_B1` (of their dtype) is overwritten. Squares are summed per example first: one float32 product over all
    of a large microbatch would leave three digits.
    """
    assert workspace_B1 is not None, "mean_squared_error needs a workspace of one column"
    scale, num_outputs = workspace_B1[0, 0], o_Bq.shape[1]
    torch.sub(o_Bq, targets, out=grad_o_Bq)
    torch.linalg.vector_norm(grad_o_Bq, dim=1, keepdim=True, out=workspace_B1)
    workspace_B1.mul_(workspace_B1)
    sum_rows(workspace_B1, True, loss_out.view(1), workspace_B1[0])
    scale.fill_(weight / num_outputs)
    loss_out.mul_(scale)
    scale.fill_(2.0 * weight / num_outputs)
    grad_o_Bq.mul_(scale)


def mean_squared_error_hessian(grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor) -> Tensor:
    """H u = 2 weight/q * u: (B, q) -> (B, q), wherever the outputs are."""
    del targets
    return u_Bq * (2.0 * weight / grad_o_Bq.shape[1])


def mean_squared_error_tangent(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    tangent_Bq: Tensor,
    workspace_Bq: Tensor | None,
    workspace_B1: Tensor | None,
    number: Tensor,
) -> None:
    """Overwrites u with H u = 2 weight/q * u; no workspace is needed."""
    del targets, workspace_Bq, workspace_B1
    tangent_Bq.mul_(number.fill_(2.0 * weight / o_Bq.shape[1]))


def huber(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    grad_o_Bq: Tensor,
    workspace_B1: Tensor | None,
    loss_out: Tensor,
    *,
    delta: float = 1.0,
) -> None:
    """L = weight/q * sum of h(o - y), h(d) = d²/2 up to |d| = delta and delta (|d| - delta/2) beyond, as torch has it.

    grad_o = weight/q * (o - y) clamped to -delta..delta. (B, q) outputs, (B, q) targets -> (B, q) in `grad_o_Bq` and ()
    in `loss_out`.
    """
    assert workspace_B1 is not None, "huber needs a workspace of one column"
    scale = workspace_B1[0, 0]
    aten.huber_loss.out(o_Bq, targets, 0, delta, out=grad_o_Bq)
    _sum_of_positive(grad_o_Bq, workspace_B1, loss_out)
    scale.fill_(weight / o_Bq.shape[1])
    loss_out.mul_(scale)
    aten.huber_loss_backward.out(scale, o_Bq, targets, 0, delta, grad_input=grad_o_Bq)


def huber_hessian(grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor, *, delta: float = 1.0) -> Tensor:
    """H u = weight/q * u where |o - y| < delta, else 0: (B, q) -> (B, q)."""
    del targets
    scale = weight / grad_o_Bq.shape[1]
    return u_Bq * scale * (grad_o_Bq.abs() < scale * delta)


def huber_tangent(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    tangent_Bq: Tensor,
    workspace_Bq: Tensor | None,
    workspace_B1: Tensor | None,
    number: Tensor,
    *,
    delta: float = 1.0,
) -> None:
    """Overwrites u with H u = weight/q * u where |o - y| < delta, else 0."""
    del workspace_B1
    assert workspace_Bq is not None, "the Hessian of huber needs a workspace for the errors"
    torch.sub(o_Bq, targets, out=workspace_Bq)
    aten.threshold_backward.grad_input(tangent_Bq, workspace_Bq.abs_().neg_(), -delta, grad_input=tangent_Bq)
    tangent_Bq.mul_(number.fill_(weight / o_Bq.shape[1]))


def binary_cross_entropy(
    o_Bq: Tensor, targets: Tensor, weight: float, grad_o_Bq: Tensor, workspace_B1: Tensor | None, loss_out: Tensor
) -> None:
    """L = -weight/q * sum of y log sigma(o) + (1 - y) log(1 - sigma(o)), grad_o = weight/q * (sigma(o) - y), as torch.

    (B, q) logits, (B, q) targets from 0 to 1 -> (B, q) in `grad_o_Bq` and () in `loss_out`; the workspace has two
    columns. The two parts of the value, log(1 + exp(-|o|)) and max(o, 0) - o y, are never negative and lose no digits.
    """
    assert workspace_B1 is not None, "binary_cross_entropy needs a workspace of two columns"
    scale, (sums_B, other_B) = workspace_B1[0, 0], workspace_B1.view(2, -1)
    torch.abs(o_Bq, out=grad_o_Bq)
    aten.softplus.out(grad_o_Bq.neg_(), 1, 20, out=grad_o_Bq)
    torch.linalg.vector_norm(grad_o_Bq, 1, dim=1, out=other_B)
    torch.abs(o_Bq, out=grad_o_Bq)
    grad_o_Bq.sub_(grad_o_Bq, alpha=0.5).addcmul_(o_Bq, targets, value=-1).add_(o_Bq, alpha=0.5)
    torch.linalg.vector_norm(grad_o_Bq, 1, dim=1, out=sums_B)
    sums_B.add_(other_B)
    sum_rows(sums_B.unsqueeze(1), True, loss_out.view(1), other_B[:1])
    scale.fill_(weight / o_Bq.shape[1])
    loss_out.mul_(scale)
    torch.sigmoid(o_Bq, out=grad_o_Bq)
    grad_o_Bq.sub_(targets).mul_(scale)


def binary_cross_entropy_hessian(grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor) -> Tensor:
    """H u = weight/q * s (1 - s) u, with s = sigma(o) = q grad_o / weight + y: (B, q), (B, q) -> (B, q)."""
    scale = weight / grad_o_Bq.shape[1]
    s_Bq = grad_o_Bq / scale + targets
    return scale * s_Bq * (1.0 - s_Bq) * u_Bq


def binary_cross_entropy_tangent(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    tangent_Bq: Tensor,
    workspace_Bq: Tensor | None,
    workspace_B1: Tensor | None,
    number: Tensor,
) -> None:
    """Overwrites u with H u = weight/q * s (1 - s) u, with s = sigma(o)."""
    del targets, workspace_B1
    assert workspace_Bq is not None, "the Hessian of binary_cross_entropy needs a workspace for the probabilities"
    torch.sigmoid(o_Bq, out=workspace_Bq)
    aten.sigmoid_backward.grad_input(tangent_Bq, workspace_Bq, grad_input=tangent_Bq)
    tangent_Bq.mul_(number.fill_(weight / o_Bq.shape[1]))


def _sum_of_positive(x_Bq: Tensor, workspace_B1: Tensor, sum_out: Tensor) -> None:
    """The sum of all elements, none of them negative, examples first: (B, q), (B, 1) -> ()."""
    torch.linalg.vector_norm(x_Bq, 1, dim=1, keepdim=True, out=workspace_B1)
    sum_rows(workspace_B1, True, sum_out.view(1), workspace_B1[0])
