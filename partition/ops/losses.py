"""Losses L = weight * sum over examples of l(o, y), with their gradient dL/do, on buffers that the caller gives.

Shapes: B examples of a microbatch, q outputs. `weight` is 1/N for a minibatch of N examples, whatever B is: the losses
and gradients of the microbatches of a minibatch then add up to those of the whole minibatch.

Value and gradient are computed together, since dJ/dL = 1 always. Nothing here allocates. Multiplying by a Python
number would (torch wraps the number in a tensor), so numbers are first put into the workspace.
Source: *Dive into Deep Learning*, dJ/do = dL/do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from partition.ops.sums import sum_rows

aten = torch.ops.aten

SUM_OVER_EXAMPLES = 2
"""`reduction` of torch's negative log-likelihood kernel."""
NO_IGNORED_TARGET = -(2**63)
"""A class index that no example has: the kernel would leave its examples out without a word."""


class LossForward(Protocol):
    """The one calling convention of all losses."""

    def __call__(
        self,
        o_Bq: Tensor,
        targets: Tensor,
        weight: float,
        grad_o_Bq: Tensor,
        workspace_B1: Tensor | None,
        loss_out: Tensor,
    ) -> None:
        """Write weight * sum of l(o, y) into the 0-dim `loss_out` and its gradient in o into `grad_o_Bq`.

        `workspace_B1` is overwritten; None is for a loss whose record gives it no column, and no loss here is one.
        Whether `grad_o_Bq` may be `o_Bq` itself: `partition.graph.LOSS_RECORDS`.
        """


class LossHessian(Protocol):
    """The Hessian of a loss in its outputs, as an expression that autograd can differentiate."""

    def __call__(self, grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor) -> Tensor:
        """H u, (B, q), for a direction u and the gradient that `LossForward` has left: o itself is not needed."""


class LossTangent(Protocol):
    """The same product from the outputs, on buffers that the caller gives."""

    def __call__(
        self,
        o_Bq: Tensor,
        targets: Tensor,
        weight: float,
        tangent_Bq: Tensor,
        workspace_Bq: Tensor | None,
        workspace_B1: Tensor | None,
        number: Tensor,
    ) -> None:
        """Overwrite a direction in o with H times it; `o_Bq` is left as it is.

        Workspaces are overwritten: `partition.graph.LOSS_RECORDS` says which there are. `number` has one element.
        """


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a loss computes; which buffers it needs is in `partition.graph.LOSS_RECORDS`.

    Example: `LOSSES["mse"].forward(o_Bq, y_Bq, 1 / N, o_Bq, torch.empty(B, 1), torch.empty(()))`.
    """

    name: str
    forward: LossForward
    hessian: LossHessian
    tangent: LossTangent


def cross_entropy(
    o_Bq: Tensor, targets: Tensor, weight: float, grad_o_Bq: Tensor, workspace_B1: Tensor | None, loss_out: Tensor
) -> None:
    """L = -weight * sum of log p[n, y_n] and grad_o = weight * (p - onehot(y)), with p = softmax(o).

    (B, q) logits, (B,) int64 targets -> (B, q) in `grad_o_Bq` and () in `loss_out`; `o_Bq` is left as it is and
    `workspace_B1` (of its dtype) is overwritten. Logits of any size are safe: log p is computed with their maximum
    subtracted, and p - 1 as expm1(log p), which keeps its digits where p is close to 1.

    Errors: IndexError (RuntimeError for NO_IGNORED_TARGET) for a target outside 0..q-1 on the CPU; on CUDA torch stops
    with a device-side assertion.
    """
    assert workspace_B1 is not None, "cross_entropy needs a workspace of one column"
    index_B1, scale = targets.unsqueeze(1), workspace_B1[0, 0]
    torch.log_softmax(o_Bq, 1, out=grad_o_Bq)
    # The kernel also wants a place for the number of examples; `scale` is free until it is filled below.
    aten.nll_loss_forward.output(
        grad_o_Bq, targets, None, SUM_OVER_EXAMPLES, NO_IGNORED_TARGET, output=loss_out, total_weight=scale
    )
    torch.gather(grad_o_Bq, 1, index_B1, out=workspace_B1)
    grad_o_Bq.exp_().scatter_(1, index_B1, workspace_B1.expm1_())
    scale.fill_(weight)
    grad_o_Bq.mul_(scale)
    loss_out.mul_(scale)


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


def cross_entropy_hessian(grad_o_Bq: Tensor, targets: Tensor, weight: float, u_Bq: Tensor) -> Tensor:
    """H u = weight * p ⊙ (u - p·u) for each example, with p = grad_o / weight + onehot(y): (B, q), (B, q) -> (B, q)."""
    index_B1 = targets.unsqueeze(1)
    p_Bq = (grad_o_Bq / weight).scatter_add(1, index_B1, torch.ones_like(index_B1, dtype=grad_o_Bq.dtype))
    return weight * p_Bq * (u_Bq - (p_Bq * u_Bq).sum(1, keepdim=True))


def cross_entropy_tangent(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    tangent_Bq: Tensor,
    workspace_Bq: Tensor | None,
    workspace_B1: Tensor | None,
    number: Tensor,
) -> None:
    """Overwrites u with H u = weight * (p ⊙ u - (p·u) p) per example, with p = softmax(o), whatever the targets."""
    del targets
    assert workspace_Bq is not None, "the Hessian of cross_entropy needs a workspace for the probabilities"
    assert workspace_B1 is not None, "the Hessian of cross_entropy needs a workspace of one column"
    torch.softmax(o_Bq, 1, out=workspace_Bq)
    tangent_Bq.mul_(workspace_Bq)
    torch.sum(tangent_Bq, 1, keepdim=True, out=workspace_B1)
    tangent_Bq.addcmul_(workspace_Bq, workspace_B1, value=-1)
    tangent_Bq.mul_(number.fill_(weight))


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


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss(
                name="cross_entropy",
                forward=cross_entropy,
                hessian=cross_entropy_hessian,
                tangent=cross_entropy_tangent,
            ),
            Loss(
                name="mse",
                forward=mean_squared_error,
                hessian=mean_squared_error_hessian,
                tangent=mean_squared_error_tangent,
            ),
        )
    }
)
