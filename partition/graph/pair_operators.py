"""The operators of a Hessian-vector product, each of a variable and its tangent; see `partition.graph.second_order`."""

from __future__ import annotations

from typing import NamedTuple

from partition.graph.layers import Gate, Layer, Norm
from partition.graph.program import Variable


class Pair(Variable):
    """A variable and its tangent in one buffer, each with one row per example."""

    def shape(self, rows: int) -> tuple[int, ...]:
        """The shape for a microbatch of `rows` examples."""
        return super().shape(2 * rows)

    def num_bytes(self, rows: int, itemsize: int) -> int:
        """Bytes for a microbatch of `rows` examples whose numbers have `itemsize` bytes."""
        return super().num_bytes(2 * rows, itemsize)


class PairAffine(NamedTuple):
    """z = x @ weight.T + bias and Rz = Rx @ weight.T + x @ V.T + Vb; without Rx where x is no pair."""

    layer: Layer
    x: Variable
    z: Pair


class PairActivate(NamedTuple):
    """h = phi(z) and Rh = phi'(z) * Rz, in place where h is z."""

    layer: Layer
    z: Pair
    h: Pair
    workspace: Variable | None = None
    """For phi', where no kernel multiplies by it at once."""


class PairActivationGrad(NamedTuple):
    """Rg = Rg * phi' + g * phi'' * Rz and g *= phi', in place, from the kept pair (h or z)."""

    layer: Layer
    kept: Pair
    grad: Pair
    workspaces: tuple[Variable, ...]


class PairInputGrad(NamedTuple):
    """grad_x = g @ weight and Rgrad_x = Rg @ weight + g @ V."""

    layer: Layer
    grad_z: Pair
    grad_x: Pair


class PairWeightGrad(NamedTuple):
    """(H V) += Rg.T @ x + g.T @ Rx for the weight, column sums of Rg for the bias."""

    layer: Layer
    x: Variable
    grad_z: Pair
    workspace: Variable | None


class PairLoss(NamedTuple):
    """Loss, its gradient g in o, and Rg = (Hessian of the loss in o) @ Ro."""

    o: Pair
    targets: Variable
    grad_o: Pair
    workspace: Variable | None
    """Of the outputs' shape."""
    column: Variable | None
    """One number per example."""
    loss: Variable


class PairLoad(NamedTuple):
    """The minibatch's rows above zeros: inputs do not depend on parameters, what is made from them in place does."""

    into: Pair


class PairNormalise(NamedTuple):
    """n = x̂ * weight + bias and Rn = Rx̂ * weight + x̂ * V + Vb, in place where n is x."""

    norm: Norm
    x: Pair
    n: Pair
    statistics: Variable


class PairNormGrad(NamedTuple):
    """x̂ and Rx̂ from x, in place where they are x; (H V) += sums of Rgrad * x̂ + grad * Rx̂ and of Rgrad.

    With `has_input_grad` the gradient and its tangent become those of x, in place.
    """

    norm: Norm
    x: Pair
    standardised: Pair
    grad: Pair
    product: Variable
    statistics: Variable
    sums: Variable
    has_input_grad: bool


class PairRescale(NamedTuple):
    """n = x̂ * weight + bias and Rn, in place: what W of the next layer needs, from what the gradient has left."""

    norm: Norm
    n: Pair


class PairGated(NamedTuple):
    """h = silu(a) * b and Rh."""

    gate: Gate
    a: Pair
    b: Pair
    h: Pair


class PairGatedGrad(NamedTuple):
    """The gradients of a (in `grad_a`) and of b (in place of that of h) with their tangents; h anew in place of a."""

    gate: Gate
    a: Pair
    b: Pair
    grad: Pair
    grad_a: Pair
    workspaces: tuple[Variable, ...]


class PairAddInputGrad(NamedTuple):
    """grad_x += g @ weight and Rgrad_x += Rg @ weight + g @ V, where another layer reads the same x."""

    layer: Layer
    grad_z: Pair
    grad_x: Pair


class PairAccumulate(NamedTuple):
    """into += source, and so their tangents; a source that is no pair has none."""

    source: Variable
    into: Pair


BlockPairOperator = (
    PairLoad
    | PairNormalise
    | PairNormGrad
    | PairRescale
    | PairGated
    | PairGatedGrad
    | PairAddInputGrad
    | PairAccumulate
)
PairOperator = (
    PairAffine | PairActivate | PairActivationGrad | PairInputGrad | PairWeightGrad | PairLoss | BlockPairOperator
)
