"""Cross-entropy of classes, plain and with class weights and smoothed labels, on buffers that the caller gives.

Shapes: B examples of a microbatch, q outputs. Nothing here allocates but the Hessians, which are for autograd.
Multiplying by a Python number would (torch wraps the number in a tensor), so numbers are first put into the workspace.
Source: *Dive into Deep Learning*, dJ/do = dL/do; Szegedy et al. 2016 for smoothed labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partition.ops.sums import sum_rows

aten = torch.ops.aten

SUM_OVER_EXAMPLES = 2
"""`reduction` of torch's negative log-likelihood kernel."""
NO_IGNORED_TARGET = -(2**63)
"""A class index that no example has: the kernel would leave its examples out without a word."""


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


def weighted_cross_entropy_hessian(
    grad_o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    u_Bq: Tensor,
    *,
    class_weights_q: Tensor,
    sum_of_weights: float,
    label_smoothing: float,
) -> Tensor:
    """H u = weight * c ⊙ p ⊙ (u - p·u) for each example: (B, q), (B, q) -> (B, q).

    With c[n] = (1 - e) w[y_n] + e S / q, and p from grad_o = weight * (c p - (1 - e) w[y_n] onehot(y) - e w / q).
    """
    index_B1, smoothed = targets.unsqueeze(1), label_smoothing / grad_o_Bq.shape[1]
    own_B1 = (1 - label_smoothing) * class_weights_q[targets].unsqueeze(1)
    c_B1 = own_B1 + smoothed * sum_of_weights
    p_Bq = ((grad_o_Bq / weight + smoothed * class_weights_q).scatter_add(1, index_B1, own_B1)) / c_B1
    return weight * c_B1 * p_Bq * (u_Bq - (p_Bq * u_Bq).sum(1, keepdim=True))


def weighted_cross_entropy_tangent(
    o_Bq: Tensor,
    targets: Tensor,
    weight: float,
    tangent_Bq: Tensor,
    workspace_Bq: Tensor | None,
    workspace_B1: Tensor | None,
    number: Tensor,
    *,
    class_weights_q: Tensor,
    sum_of_weights: float,
    label_smoothing: float,
) -> None:
    """Overwrites u with H u = weight * c ⊙ (p ⊙ u - (p·u) p); of the workspace of one number a row two are used."""
    assert workspace_B1 is not None, "the Hessian of weighted_cross_entropy needs a workspace of two columns"
    own_B, other_B = workspace_B1.view(2, -1)
    cross_entropy_tangent(o_Bq, targets, weight, tangent_Bq, workspace_Bq, own_B.unsqueeze(1), number)
    torch.index_select(class_weights_q, 0, targets, out=own_B)
    other_B.fill_(label_smoothing / o_Bq.shape[1] * sum_of_weights)
    torch.add(other_B, own_B, alpha=1 - label_smoothing, out=own_B)
    tangent_Bq.mul_(own_B.unsqueeze(1))
