"""Elementwise activations h = phi(z) and their gradients, in place or into buffers that the caller gives.

Shapes: every tensor is z_BO's shape, B examples by O features, contiguous.

    forward(z, out)           out = phi(z); `out` may be `z` itself
    backward(grad_h, kept)    grad_h <- grad_z = grad_h ⊙ phi'(z), in place
    second                    the derivative of phi' in `kept`, see `partition.ops.second`

`kept` is what `partition.graph.ACTIVATION_RECORDS` says the activation keeps between the two: the output h where phi'
follows from it (then h overwrites z), the pre-activation z otherwise. One tensor is enough for every activation.

Nothing here allocates, with a workspace where the record has one. The kernels are torch's own fused ones, which read
and write each element once.
Source: *Dive into Deep Learning*, dJ/dz = dJ/dh ⊙ phi'(z); Hendrycks and Gimpel 2016 for GELU and SiLU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from partition.ops import second
from partition.ops.second import Second

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What an activation computes; what it keeps and costs is in `partition.graph.ACTIVATION_RECORDS`.

    Example: `ACTIVATIONS["gelu"].forward(z_BO, h_BO)`, later `ACTIVATIONS["gelu"].backward(grad_h_BO, z_BO)`.
    """

    name: str
    forward: Callable[[Tensor, Tensor], None]
    """(z, out): out = phi(z), all of one shape."""
    backward: Callable[..., None]
    """(grad_h, kept): grad_h becomes grad_h ⊙ phi'(z), all of one shape; where the record has a workspace, a third
    tensor of that shape is overwritten, or allocated where it is not given."""
    second: Second | None
    """The derivative of phi' in what is kept; None where it is 0 everywhere but at kinks."""


def identity(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = z."""
    out_BO.copy_(z_BO)


def identity_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = 1: the gradient stays as it is, and `h_BO` is not read."""


def relu(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = max(z, 0)."""
    torch.clamp_min(z_BO, 0, out=out_BO)


def relu_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = 1 where h > 0, else 0; 0 at the kink, as torch has it."""
    aten.threshold_backward.grad_input(grad_h_BO, h_BO, 0, grad_input=grad_h_BO)


def tanh(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = 1 - 2 / (exp(2z) + 1), the hyperbolic tangent."""
    torch.tanh(z_BO, out=out_BO)


def tanh_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = 1 - h²."""
    aten.tanh_backward.grad_input(grad_h_BO, h_BO, grad_input=grad_h_BO)


def sigmoid(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = sigma(z) = 1 / (1 + exp(-z))."""
    torch.sigmoid(z_BO, out=out_BO)


def sigmoid_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = h (1 - h)."""
    aten.sigmoid_backward.grad_input(grad_h_BO, h_BO, grad_input=grad_h_BO)


def gelu(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = z Phi(z), with Phi(z) = (1 + erf(z / √2)) / 2 the normal distribution function."""
    aten.gelu.out(z_BO, approximate="none", out=out_BO)


def gelu_backward(grad_h_BO: Tensor, z_BO: Tensor) -> None:
    """phi'(z) = Phi(z) + z exp(-z²/2) / √(2π)."""
    aten.gelu_backward.grad_input(grad_h_BO, z_BO, approximate="none", grad_input=grad_h_BO)


def gelu_tanh(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = z (1 + t) / 2, with t = tanh(√(2/π) (z + 0.044715 z³))."""
    aten.gelu.out(z_BO, approximate="tanh", out=out_BO)


def gelu_tanh_backward(grad_h_BO: Tensor, z_BO: Tensor) -> None:
    """phi'(z) = (1 + t) / 2 + z (1 - t²) √(2/π) (1 + 3 * 0.044715 z²) / 2, with t as in the forward."""
    aten.gelu_backward.grad_input(grad_h_BO, z_BO, approximate="tanh", grad_input=grad_h_BO)


def silu(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = z sigma(z)."""
    aten.silu.out(z_BO, out=out_BO)


def silu_backward(grad_h_BO: Tensor, z_BO: Tensor) -> None:
    """phi'(z) = sigma(z) (1 + z (1 - sigma(z)))."""
    aten.silu_backward.grad_input(grad_h_BO, z_BO, grad_input=grad_h_BO)


LEAKY_SLOPE = 0.01
"""phi'(z) of leaky_relu where z < 0, as torch has it."""
LINEAR_BEYOND = 20.0
"""Where softplus is z itself, as torch has it: there it differs by less than 3e-9."""


def leaky_relu(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = max(z, 0) + 0.01 min(z, 0)."""
    aten.leaky_relu.out(z_BO, LEAKY_SLOPE, out=out_BO)


def leaky_relu_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = 1 where h > 0, else 0.01: h has the sign of z."""
    aten.leaky_relu_backward.grad_input(grad_h_BO, h_BO, LEAKY_SLOPE, True, grad_input=grad_h_BO)


def elu(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = z where z > 0, else exp(z) - 1."""
    aten.elu.out(z_BO, out=out_BO)


def elu_backward(grad_h_BO: Tensor, h_BO: Tensor) -> None:
    """phi'(z) = 1 where h > 0, else exp(z) = h + 1."""
    aten.elu_backward.grad_input(grad_h_BO, 1.0, 1.0, 1.0, True, h_BO, grad_input=grad_h_BO)


def softplus(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = log(1 + exp(z))."""
    aten.softplus.out(z_BO, 1, LINEAR_BEYOND, out=out_BO)


def softplus_backward(grad_h_BO: Tensor, z_BO: Tensor) -> None:
    """phi'(z) = sigma(z)."""
    aten.softplus_backward.grad_input(grad_h_BO, z_BO, 1, LINEAR_BEYOND, grad_input=grad_h_BO)


def sin(z_BO: Tensor, out_BO: Tensor) -> None:
    """phi(z) = sin z."""
    torch.sin(z_BO, out=out_BO)


def sin_backward(grad_h_BO: Tensor, z_BO: Tensor, workspace_BO: Tensor | None = None) -> None:
    """phi'(z) = cos z; z is still needed for sin z, so that cos z has a buffer of its own."""
    grad_h_BO.mul_(torch.cos(z_BO) if workspace_BO is None else torch.cos(z_BO, out=workspace_BO))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        activation.name: activation
        for activation in (
            Activation(name="identity", forward=identity, backward=identity_backward, second=None),
            Activation(name="relu", forward=relu, backward=relu_backward, second=None),
            Activation(name="tanh", forward=tanh, backward=tanh_backward, second=second.TANH),
            Activation(name="sigmoid", forward=sigmoid, backward=sigmoid_backward, second=second.SIGMOID),
            Activation(name="gelu", forward=gelu, backward=gelu_backward, second=second.GELU),
            Activation(name="gelu_tanh", forward=gelu_tanh, backward=gelu_tanh_backward, second=second.GELU_TANH),
            Activation(name="silu", forward=silu, backward=silu_backward, second=second.SILU),
            Activation(name="leaky_relu", forward=leaky_relu, backward=leaky_relu_backward, second=None),
            Activation(name="elu", forward=elu, backward=elu_backward, second=second.ELU),
            Activation(name="softplus", forward=softplus, backward=softplus_backward, second=second.SOFTPLUS),
            Activation(name="sin", forward=sin, backward=sin_backward, second=second.SIN),
        )
    }
)
