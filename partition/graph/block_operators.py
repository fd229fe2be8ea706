"""The operators that blocks need besides those of a plain network; variables as in `partition.graph.program`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from partition.graph.layers import Dropout, Gate, Layer, Norm

if TYPE_CHECKING:
    from partition.graph.program import Variable


class Normalise(NamedTuple):
    """n = x̂ * weight + bias, in place where n is x."""

    norm: Norm
    x: Variable
    n: Variable
    workspace: Variable
    wide: Variable | None = None
    """x in the parameters' format, where the arithmetic is in a narrower one; x̂ is then rounded before it is scaled."""


class NormGrad(NamedTuple):
    """x̂ from x, in place where it is x; grad_weight += sum of grad * x̂, grad_bias += sum of grad.

    With `has_input_grad` the gradient becomes that of x, in place. The weight gradient is not left for W: it would need
    another tensor until then, and is two sums. Where noise is measured, `norms` stands for the norm of the gradients of
    this norm's parameters of all examples, a number that the stage provides.
    """

    norm: Norm
    x: Variable
    standardised: Variable
    grad: Variable
    product: Variable
    statistics: Variable
    sums: Variable
    has_input_grad: bool
    wide: Variable | None = None
    wide_grad: Variable | None = None
    """x and grad in the parameters' format, where the arithmetic is in a narrower one."""
    norms: Variable | None = None


class Rescale(NamedTuple):
    """n = x̂ * weight + bias in place: what W of the next layer needs, from what the gradient has left."""

    norm: Norm
    n: Variable
    wide: Variable | None = None
    """n in the parameters' format, where the arithmetic is in a narrower one."""


class Drop(NamedTuple):
    """out = x * mask / (1 - rate), in place where out is x: of values and of gradients alike, the mask made anew."""

    dropout: Dropout
    x: Variable
    out: Variable
    workspace: Variable


class Gated(NamedTuple):
    """h = silu(a) * b, in place where h is a."""

    gate: Gate
    a: Variable
    b: Variable
    h: Variable


class GatedGrad(NamedTuple):
    """The gradients of a (in `grad_a`) and of b (in place of that of h), and h anew in place of a."""

    gate: Gate
    a: Variable
    b: Variable
    grad: Variable
    grad_a: Variable


class AddInputGrad(NamedTuple):
    """grad_x += grad_z @ weight, where another layer reads the same x."""

    layer: Layer
    grad_z: Variable
    grad_x: Variable
    weights: Variable | None = None
    """The weight in the compute format, where the parameters are in another."""


class Accumulate(NamedTuple):
    """into += source: the sum of a residual block, and of its gradients."""

    source: Variable
    into: Variable


BlockOperator = Normalise | NormGrad | Rescale | Drop | Gated | GatedGrad | AddInputGrad | Accumulate
