"""How every loss is called: value and gradient together, and the product of its Hessian with a direction.

Shapes: B examples of a microbatch, q outputs. `weight` is 1/N for a minibatch of N examples, whatever B is: the losses
and gradients of the microbatches of a minibatch then add up to those of the whole minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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
