"""Losses L = weight * sum over examples of l(o, y), with their gradient dL/do, on buffers that the caller gives.

Shapes: B examples of a microbatch, q outputs. `weight` is 1/N for a minibatch of N examples, whatever B is: the losses
and gradients of the microbatches of a minibatch then add up to those of the whole minibatch.

Value and gradient are computed together, since dJ/dL = 1 always. Nothing here allocates. Multiplying by a Python
number would (torch wraps the number in a tensor), so numbers are first put into the workspace.
Source: *Dive into Deep Learning*, dJ/do = dL/do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from partition.graph import LossRecord
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

        `workspace_B1` has the columns of the record and is overwritten; None is for a loss whose record gives it none,
        and no loss here is one.
        Whether `grad_o_Bq` may be `o_Bq` itself: `partition.graph.LOSS_RECORDS`.
        """


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a loss computes; which buffers it needs is in `partition.graph.LOSS_RECORDS`.

    Example: `LOSSES["mse"].forward(o_Bq, y_Bq, 1 / N, o_Bq, torch.empty(B, 1), torch.empty(()))`.
    """

    name: str
    forward: LossForward


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


def weighted_cross_entropy(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    grad_o_Bq: Tensor,
    workspace_B1: Tensor | None,
    loss_out: Tensor,
    *,
    class_weights_q: Tensor,
    sum_of_weights: float,
    label_smoothing: float,
) -> None:
    """Cross-entropy with class weights w and a part e of every target spread over all q classes, as torch has it.

    L = -weight * sum over n of ((1 - e) w[y_n] log p[n, y_n] + e/q * sum over k of w_k log p[n, k]), and
    grad_o[n, k] = weight * (((1 - e) w[y_n] + e S / q) p[n, k] - (1 - e) w[y_n] [k = y_n] - e w_k / q), S the sum of w.
    (B, q) logits, (B,) int64 targets, (q,) weights -> (B, q) in `grad_o_Bq` and () in `loss_out`; the workspace has
    two columns. `weight` is one over the sum of w[y_n] over the whole minibatch.
    """
    assert workspace_B1 is not None, "weighted_cross_entropy needs a workspace of two columns"
    own_B, value_B = workspace_B1.view(2, -1)
    own_B1, index_B1, smoothed = own_B.unsqueeze(1), targets.unsqueeze(1), label_smoothing / o_Bq.shape[1]
    torch.log_softmax(o_Bq, 1, out=grad_o_Bq)
    # The kernel looks at every target: what `index_select` does with one outside 0..q-1 is less clear.
    aten.nll_loss_forward.output(
        grad_o_Bq, targets, None, SUM_OVER_EXAMPLES, NO_IGNORED_TARGET, output=loss_out, total_weight=own_B[0]
    )
    torch.gather(grad_o_Bq, 1, index_B1, out=value_B.unsqueeze(1))
    torch.index_select(class_weights_q, 0, targets, out=own_B)
    value_B.mul_(own_B)
    torch.addmv(value_B, grad_o_Bq, class_weights_q, beta=label_smoothing - 1, alpha=-smoothed, out=value_B)
    sum_rows(value_B.unsqueeze(1), True, loss_out.view(1), value_B[:1])
    torch.gather(grad_o_Bq, 1, index_B1, out=value_B.unsqueeze(1))
    grad_o_Bq.exp_().scatter_(1, index_B1, value_B.expm1_().unsqueeze(1))
    value_B.fill_(smoothed * sum_of_weights)
    torch.add(value_B, own_B, alpha=1 - label_smoothing, out=own_B)
    grad_o_Bq.mul_(own_B1)
    if label_smoothing:
        grad_o_Bq.scatter_add_(1, index_B1, value_B.unsqueeze(1))
        grad_o_Bq.sub_(class_weights_q, alpha=smoothed)
    scale = own_B[0].fill_(weight)
    grad_o_Bq.mul_(scale)
    loss_out.mul_(scale)


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


def _sum_of_positive(x_Bq: Tensor, workspace_B1: Tensor, sum_out: Tensor) -> None:
    """The sum of all elements, none of them negative, examples first: (B, q), (B, 1) -> ()."""
    torch.linalg.vector_norm(x_Bq, 1, dim=1, keepdim=True, out=workspace_B1)
    sum_rows(workspace_B1, True, sum_out.view(1), workspace_B1[0])


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss(name="cross_entropy", forward=cross_entropy),
            Loss(name="mse", forward=mean_squared_error),
            Loss(name="huber", forward=huber),
            Loss(name="binary_cross_entropy", forward=binary_cross_entropy),
        )
    }
)


def bind_loss(record: LossRecord, class_vector_q: Tensor | None) -> LossForward:
    """The kernel of a loss with its options; `class_vector_q` holds the numbers of `class_vector`, if there are any."""
    if record.name == "huber":
        return partial(huber, delta=record.delta)
    if class_vector_q is not None:
        numbers = class_vector(record, len(class_vector_q)) or ()
        return partial(
            weighted_cross_entropy,
            class_weights_q=class_vector_q,
            sum_of_weights=sum(numbers),
            label_smoothing=record.label_smoothing,
        )
    return LOSSES[record.name].forward


def class_vector(record: LossRecord, num_outputs: int) -> tuple[float, ...] | None:
    """The numbers that a loss reads for its classes; None where it reads none."""
    if not record.has_class_vector:
        return None
    return record.class_weights or (1.0,) * num_outputs


_PLAIN: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "mse": functional.mse_loss,
        "huber": functional.huber_loss,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    }
)


def summed_loss(record: LossRecord, o_Bq: Tensor, targets: Tensor) -> Tensor:
    """The sum over examples of a loss by torch's own function, for automatic differentiation and for evaluation.

    Divided by `summed_weight` of the same examples it is their mean.
    """
    if record.name == "cross_entropy":
        weights = None if record.class_weights is None else o_Bq.new_tensor(record.class_weights)
        return functional.cross_entropy(o_Bq, targets, weights, reduction="sum", label_smoothing=record.label_smoothing)
    options = {"delta": record.delta} if record.name == "huber" else {}
    return _PLAIN[record.name](o_Bq, targets, reduction="sum", **options) / o_Bq.shape[1]


def summed_weight(record: LossRecord, targets: NDArray[Any]) -> float:
    """What a minibatch's examples count together: their number, or the sum of the weights of their classes."""
    if record.class_weights is None:
        return float(len(targets))
    return float(np.asarray(record.class_weights, dtype=np.float64)[targets].sum())
