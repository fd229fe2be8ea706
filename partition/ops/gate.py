"""The gate of SwiGLU and its gradient, on buffers that the caller gives (Shazeer 2020, *GLU Variants*).

Shapes: every tensor is h_BH's shape, B examples by H features, contiguous.

    h = silu(a) ⊙ b
    grad_b = grad_h ⊙ silu(a), grad_a = grad_h ⊙ b ⊙ silu'(a)

a and b are kept; the gradient leaves h in the place of a, for the weight gradient of the layer that reads it. Nothing
here allocates.
"""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


def gated(a_BH: Tensor, b_BH: Tensor, out_BH: Tensor) -> None:
    """H = silu(a) ⊙ b; `out_BH` may be `a_BH` itself.

    Example: `gated(a_BH, b_BH, torch.empty_like(a_BH))`.
    """
    aten.silu.out(a_BH, out=out_BH)
    out_BH.mul_(b_BH)


def gated_grad(a_BH: Tensor, b_BH: Tensor, grad_BH: Tensor, grad_a_BH: Tensor) -> None:
    """grad_h becomes grad_b, a becomes h, and grad_a goes into `grad_a_BH`; b is left as it is.

    Example: `gated_grad(a_BH, b_BH, grad_BH, torch.empty_like(a_BH))`.
    """
    torch.mul(grad_BH, b_BH, out=grad_a_BH)
    aten.silu_backward.grad_input(grad_a_BH, a_BH, grad_input=grad_a_BH)
    aten.silu.out(a_BH, out=a_BH)
    grad_BH.mul_(a_BH)
    a_BH.mul_(b_BH)
