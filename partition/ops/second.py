"""Second derivatives of elementwise activations: the derivative of phi' in the one tensor that is kept.

Shapes: every tensor is z_BO's shape, B examples by O features, contiguous.

    where z is kept    d phi'/dz = phi''(z)
    where h is kept    d phi'/dh, so that d phi'/dh * phi'(z) = phi''(z): tanh' = 1 - h² gives -2h

A direction's tangent is that of the kept tensor too, R{z} or R{h}, so in both cases R{phi'(z)} is the derivative here
times the tangent of what is kept, and nothing but that one tensor is needed.

Each is written twice: as an expression of torch's operators, which autograd can differentiate as often as one likes,
and as a kernel on the caller's buffers, which allocates nothing (multiplying by a Python number would, so numbers go
into `number` first). A test holds the two together.
Source: *Dive into Deep Learning*, exercise 4 on second derivatives; Pearlmutter 1994, *Fast exact multiplication by the
Hessian*, for R{}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

aten = torch.ops.aten

NORMAL_PEAK = 1.0 / math.sqrt(2.0 * math.pi)
TANH_SLOPE, TANH_CUBIC = math.sqrt(2.0 / math.pi), 0.044715
"""gelu_tanh(z) = z (1 + tanh(TANH_SLOPE * (z + TANH_CUBIC z³))) / 2."""


class AddSecond(Protocol):
    """The one calling convention of all kernels."""

    def __call__(
        self,
        grad_h_BO: Tensor,
        kept_BO: Tensor,
        tangent_BO: Tensor,
        out_BO: Tensor,
        workspaces: Sequence[Tensor],
        number: Tensor,
        /,
    ) -> None:
        """Do out += grad_h ⊙ (the derivative of phi' in kept) ⊙ tangent.

        Overwrites the workspaces, as many as `partition.graph.ACTIVATION_RECORDS` says, and `number`, one element.
        """


@dataclass(frozen=True, kw_only=True)
class Second:
    """The derivative of phi' in what is kept.

    Example: `TANH.expression(h_BO)` is `-2 * h_BO`.
    """

    expression: Callable[[Tensor], Tensor]
    add: AddSecond


def _tanh(h: Tensor) -> Tensor:
    return -2.0 * h


def _add_tanh(grad_h: Tensor, h: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor) -> None:
    (a,) = workspaces
    torch.mul(grad_h, tangent, out=a)
    out.addcmul_(a, h, value=-2)


def _sigmoid(h: Tensor) -> Tensor:
    return 1.0 - 2.0 * h


def _add_sigmoid(
    grad_h: Tensor, h: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor
) -> None:
    (a,) = workspaces
    torch.mul(grad_h, tangent, out=a)
    out.add_(a).addcmul_(a, h, value=-2)


def _gelu(z: Tensor) -> Tensor:
    return NORMAL_PEAK * torch.exp(-0.5 * z * z) * (2.0 - z * z)


def _add_gelu(
    grad_h: Tensor, z: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], number: Tensor
) -> None:
    (a,) = workspaces
    torch.mul(z, z, out=a)
    a.mul_(number.fill_(-0.5)).exp_().mul_(grad_h).mul_(tangent)
    out.add_(a, alpha=2.0 * NORMAL_PEAK)
    out.addcmul_(a.mul_(z), z, value=-NORMAL_PEAK)


def _gelu_tanh(z: Tensor) -> Tensor:
    t = torch.tanh(TANH_SLOPE * (z + TANH_CUBIC * z * z * z))
    inner = TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * z * z)
    return (1.0 - t * t) * (TANH_SLOPE * (1.0 + 6.0 * TANH_CUBIC * z * z) - z * t * inner * inner)


def _add_gelu_tanh(
    grad_h: Tensor, z: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], number: Tensor
) -> None:
    a, b = workspaces
    torch.mul(z, z, out=a)
    torch.addcmul(z, a, z, value=TANH_CUBIC, out=a)
    a.mul_(number.fill_(TANH_SLOPE)).tanh_()
    torch.mul(grad_h, tangent, out=b)
    aten.tanh_backward.grad_input(b, a, grad_input=b)  # b (1 - a²)
    out.add_(b, alpha=TANH_SLOPE)
    out.addcmul_(b.mul_(z), z, value=6.0 * TANH_SLOPE * TANH_CUBIC)
    b.mul_(a)
    torch.mul(z, z, out=a)
    a.mul_(number.fill_(3.0 * TANH_CUBIC)).add_(number.fill_(1.0))
    out.addcmul_(b.mul_(a), a, value=-TANH_SLOPE * TANH_SLOPE)


def _silu(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1.0 - s) * (2.0 + z * (1.0 - 2.0 * s))


def _add_silu(grad_h: Tensor, z: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor) -> None:
    a, b = workspaces
    torch.sigmoid(z, out=a)
    torch.mul(grad_h, tangent, out=b)
    aten.sigmoid_backward.grad_input(b, a, grad_input=b)  # b a (1 - a)
    out.add_(b, alpha=2).add_(b.mul_(z))
    out.addcmul_(b, a, value=-2)


def _elu(h: Tensor) -> Tensor:
    return (h < 0).to(h.dtype)  # at the kink 0, as torch has it


def _add_elu(grad_h: Tensor, h: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor) -> None:
    a, b = workspaces
    torch.mul(grad_h, tangent, out=a)
    torch.neg(h, out=b)
    out.add_(aten.threshold_backward.grad_input(a, b, 0, grad_input=b))  # a where -h > 0


def _softplus(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1.0 - s)


def _add_softplus(
    grad_h: Tensor, z: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor
) -> None:
    a, b = workspaces
    torch.sigmoid(z, out=a)
    torch.mul(grad_h, tangent, out=b)
    out.add_(aten.sigmoid_backward.grad_input(b, a, grad_input=b))  # b a (1 - a)


def _sin(z: Tensor) -> Tensor:
    return -torch.sin(z)


def _add_sin(grad_h: Tensor, z: Tensor, tangent: Tensor, out: Tensor, workspaces: Sequence[Tensor], _: Tensor) -> None:
    (a,) = workspaces
    torch.sin(z, out=a)
    out.addcmul_(a.mul_(grad_h), tangent, value=-1)


TANH = Second(expression=_tanh, add=_add_tanh)
SIGMOID = Second(expression=_sigmoid, add=_add_sigmoid)
GELU = Second(expression=_gelu, add=_add_gelu)
GELU_TANH = Second(expression=_gelu_tanh, add=_add_gelu_tanh)
SILU = Second(expression=_silu, add=_add_silu)
ELU = Second(expression=_elu, add=_add_elu)
SOFTPLUS = Second(expression=_softplus, add=_add_softplus)
SIN = Second(expression=_sin, add=_add_sin)
