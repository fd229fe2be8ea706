"""Stage programs: the operators and variables of one stage, in the order in which they run.

A stage is a run of contiguous layers. Each of its actions (forward F, input gradient I, weight gradient W, full
backward B = I and W woven together, optimizer STEP, prediction) is a *program*: a list of instructions that take a
buffer, compute, and give a buffer back. The planner sums the same list that the runtime interprets, so bytes and
operations are priced from what runs.

Variables of layer l, one row per example of the microbatch:

    x        input of the stage (the minibatch's rows, or what the previous stage sent)
    z{l}     pre-activation; in place, the output h = phi(z) of activations that keep their output
    h{l}     phi(z{l}) of activations that keep z: gone after the next layer's product
    g{l}     dJ/dh{l}, in place dJ/dz{l}: kept until the weight gradient of layer l

Exactly one tensor per layer stands between F and B, and two (input and g) between I and W:

    F    x -> z0 -> [h0] -> z1 -> [h1] -> ... -> o -> loss and g{last}
    I    g{l} *= phi'(z{l});  z{l} <- phi(z{l}) where z was kept;  g{l-1} = g{l} @ weight{l}
    W    grad_weight{l} += g{l}.T @ input{l};  give input{l} and g{l} back
         (where noise is measured, the norms of every example's gradient before that, from the rows of both)
    B    the same operators as I and W, W of layer l+1 as soon as its input is recovered
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from partition.graph.layers import Layer, Unit
from partition.graph.network import Network

if TYPE_CHECKING:
    from partition.graph.block_operators import BlockOperator
    from partition.graph.mixed_operators import MixedOperator
    from partition.graph.pair_operators import PairOperator


TARGETS = "targets"
"""The name of the variable that holds them; what else is loaded are the inputs."""
WIDE_FORMAT = "float32"
"""Of parameters, gradients and sums where the arithmetic is in a narrower format: see `partition.graph.mixed`."""
WIDE_ITEMSIZE = 4


class Category(StrEnum):
    """What a byte of a device is used for."""

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    BOUNDARY = "boundary"
    WORKSPACE = "workspace"
    DATA = "data"


class Variable(NamedTuple):
    """A tensor of a stage: rows x columns, one of the two axes possibly absent."""

    name: str
    category: Category
    has_rows: bool = True
    """One row per example of the microbatch."""
    columns: int | None = None
    is_index: bool = False
    """Elements are int64 class indices, not numbers of the compute format."""
    is_wide: bool = False
    """Numbers are of WIDE_FORMAT, where the arithmetic is in a narrower one."""

    def shape(self, rows: int) -> tuple[int, ...]:
        """The shape for a microbatch of `rows` examples."""
        return (rows,) * self.has_rows + (() if self.columns is None else (self.columns,))

    def num_bytes(self, rows: int, itemsize: int) -> int:
        """Bytes for a microbatch of `rows` examples whose numbers have `itemsize` bytes."""
        elements = (rows if self.has_rows else 1) * (1 if self.columns is None else self.columns)
        return elements * (8 if self.is_index else WIDE_ITEMSIZE if self.is_wide else itemsize)


class Take(NamedTuple):
    """Allocate a variable."""

    variable: Variable


class Give(NamedTuple):
    """Give a variable's buffer back."""

    variable: Variable


class Load(NamedTuple):
    """Fill a variable with the microbatch's rows of the inputs or the targets."""

    into: Variable


class Affine(NamedTuple):
    """z = x @ weight.T + bias."""

    layer: Layer
    x: Variable
    z: Variable
    weights: Variable | None = None
    """Weight and bias in the compute format, where the parameters are in another."""


class Activate(NamedTuple):
    """h = phi(z), in place where h is z."""

    layer: Layer
    z: Variable
    h: Variable


class ActivationGrad(NamedTuple):
    """Grad *= phi', from the kept tensor (h or z, as the activation's record says), in place on grad."""

    layer: Layer
    kept: Variable
    grad: Variable
    workspace: Variable | None = None


class InputGrad(NamedTuple):
    """grad_x = grad_z @ weight."""

    layer: Layer
    grad_z: Variable
    grad_x: Variable
    weights: Variable | None = None
    """The weight in the compute format, where the parameters are in another."""


class WeightGrad(NamedTuple):
    """grad_weight += grad_z.T @ x; grad_bias += column sums of grad_z."""

    layer: Layer
    x: Variable
    grad_z: Variable
    workspace: Variable | None


class ExampleNorms(NamedTuple):
    """Norm of the gradients of this layer of all examples: the root of the sum of |g_n|^2 |(x_n, 1)|^2."""

    layer: Layer
    x: Variable
    grad_z: Variable
    workspace: Variable
    into: Variable
    """A number for each layer and microbatch that the stage provides."""


class LossAndGrad(NamedTuple):
    """Loss = weighted sum of l(o, y) over the microbatch, and its gradient in o."""

    o: Variable
    targets: Variable
    grad_o: Variable
    workspace: Variable | None
    loss: Variable


Operator: TypeAlias = (
    "Load | Affine | Activate | ActivationGrad | InputGrad | WeightGrad | ExampleNorms | LossAndGrad | BlockOperator"
    " | MixedOperator | PairOperator"
)
Instruction: TypeAlias = "Take | Give | Operator"
Program: TypeAlias = "tuple[Instruction, ...]"


@dataclass(frozen=True, kw_only=True)
class StageProgram:
    """Everything one stage does, for any microbatch size."""

    layers: tuple[Unit, ...]
    input: Variable
    output: Variable
    """What SEND_F sends; on the last stage the loss, a number that the stage provides and F fills."""
    prediction: Variable
    """What `predict` leaves: the logits on the last stage, what is sent elsewhere."""
    grad_output: Variable | None
    """What RECV_B receives; None on the last stage."""
    grad_input: Variable | None
    """What SEND_B sends; None on the first stage, which computes no input gradient."""
    is_output_kept: bool
    """True: the sent output is kept until B anyway; False: it is given back once it has been sent."""
    forward: Program
    backward: Program
    input_grad: Program
    weight_grad: Program
    predict: Program
    has_noise: bool = False
    """W takes the norms of every example's gradient."""
    is_mixed: bool = False
    """The arithmetic is in a narrower format than parameters, gradients and sums."""
    recompute: Program = ()
    """R: makes again, before the backward, what F has given back (see `partition.graph.recompute`)."""

    @property
    def is_first(self) -> bool:
        """The stage that reads the inputs."""
        return self.grad_input is None

    @property
    def is_last(self) -> bool:
        """The stage that reads the targets and computes the loss."""
        return self.grad_output is None


def build_stage_program(
    network: Network, first_layer: int, last_layer: int, *, has_noise: bool = False, is_mixed: bool = False
) -> StageProgram:
    """The programs of the stage of layers first_layer..last_layer, inclusive.

    The stage of the first layer loads the inputs and computes no input gradient; that of the last computes the loss.
    With `has_noise` its W takes the norms of every example's gradient besides, and changes nothing else. With
    `is_mixed` the arithmetic is in a narrower format than parameters, gradients and sums.
    """
    from partition.graph.builder import StageBuilder  # which is made of the instructions of this module

    is_first, is_last = first_layer == 0, last_layer == network.num_layers - 1
    builder = StageBuilder(
        network, first_layer, last_layer, is_first=is_first, is_last=is_last, has_noise=has_noise, is_mixed=is_mixed
    )
    return builder.build()


def build_module_program(network: Network) -> StageProgram:
    """The programs of a whole network that is given its input and leaves its output, as if others stood around it.

    The input is the caller's and is not overwritten.
    """
    from partition.graph.builder import StageBuilder

    return StageBuilder(network, 0, network.num_layers - 1, is_first=False, is_last=False, owns_input=False).build()


def operators(program: Sequence[Instruction]) -> Iterator[Operator]:
    """The instructions that compute or copy, without those that take and give buffers."""
    for instruction in program:
        if not isinstance(instruction, Take | Give):
            yield instruction
