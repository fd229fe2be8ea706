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
    B    the same operators as I and W, W of layer l+1 as soon as its input is recovered
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from partition.graph.activations import Keeps
from partition.graph.network import Layer, Network


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

    def shape(self, rows: int) -> tuple[int, ...]:
        """The shape for a microbatch of `rows` examples."""
        return (rows,) * self.has_rows + (() if self.columns is None else (self.columns,))

    def num_bytes(self, rows: int, itemsize: int) -> int:
        """Bytes for a microbatch of `rows` examples whose numbers have `itemsize` bytes."""
        elements = (rows if self.has_rows else 1) * (1 if self.columns is None else self.columns)
        return elements * (8 if self.is_index else itemsize)


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


class WeightGrad(NamedTuple):
    """grad_weight += grad_z.T @ x; grad_bias += column sums of grad_z."""

    layer: Layer
    x: Variable
    grad_z: Variable
    workspace: Variable | None


class LossAndGrad(NamedTuple):
    """Loss = weighted sum of l(o, y) over the microbatch, and its gradient in o."""

    o: Variable
    targets: Variable
    grad_o: Variable
    workspace: Variable | None
    loss: Variable


Operator = Load | Affine | Activate | ActivationGrad | InputGrad | WeightGrad | LossAndGrad
Instruction = Take | Give | Operator
Program = tuple[Instruction, ...]


@dataclass(frozen=True, kw_only=True)
class StageProgram:
    """Everything one stage does, for any microbatch size."""

    layers: tuple[Layer, ...]
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

    @property
    def is_first(self) -> bool:
        """The stage that reads the inputs."""
        return self.grad_input is None

    @property
    def is_last(self) -> bool:
        """The stage that reads the targets and computes the loss."""
        return self.grad_output is None


def build_stage_program(network: Network, first_layer: int, last_layer: int) -> StageProgram:
    """The programs of the stage of layers first_layer..last_layer, inclusive.

    The stage of the first layer loads the inputs and computes no input gradient; that of the last computes the loss.
    """
    is_last = last_layer == network.num_layers - 1
    return _Builder(network, first_layer, last_layer, is_first=first_layer == 0, is_last=is_last).build()


def build_module_program(network: Network) -> StageProgram:
    """The programs of a whole network that is given its input and leaves its output, as if others stood around it."""
    return _Builder(network, 0, network.num_layers - 1, is_first=False, is_last=False).build()


class _Builder:
    """Names the variables of one stage once and lists its instructions."""

    def __init__(self, network: Network, first_layer: int, last_layer: int, *, is_first: bool, is_last: bool) -> None:
        self.layers = network.layers[first_layer : last_layer + 1]
        self.first, self.last = first_layer, last_layer
        self.is_first, self.is_last = is_first, is_last
        self.record = network.loss
        first, final = self.layers[0], self.layers[-1]
        source = Category.DATA if self.is_first else Category.ACTIVATIONS
        self.x = Variable("x", source, columns=first.in_features)
        self.z = {layer.index: Variable(f"z{layer.index}", Category.ACTIVATIONS, columns=layer.out_features)
                  for layer in self.layers}  # fmt: skip
        self.g = {layer.index: Variable(f"g{layer.index}", Category.ACTIVATIONS, columns=layer.out_features)
                  for layer in self.layers}  # fmt: skip
        self.g[first_layer - 1] = Variable(f"g{first_layer - 1}", Category.BOUNDARY, columns=first.in_features)
        if not self.is_last:
            if final.activation.keeps == Keeps.NOTHING:
                self.z[last_layer] = self.z[last_layer]._replace(category=Category.BOUNDARY)
            self.g[last_layer] = Variable(f"g{last_layer}", Category.BOUNDARY, columns=final.out_features)
        elif self.record.is_in_place:
            self.g[last_layer] = self.z[last_layer]
        self.loss = Variable("loss", Category.WORKSPACE, has_rows=False)

    def build(self) -> StageProgram:
        final = self.layers[-1]
        return StageProgram(
            layers=self.layers,
            input=self.x,
            output=self.loss if self.is_last else self._output_of(final),
            prediction=self.z[self.last],
            grad_output=None if self.is_last else self.g[self.last],
            grad_input=None if self.is_first else self.g[self.first - 1],
            is_output_kept=not self.is_last and final.activation.keeps == Keeps.OUTPUT,
            forward=tuple(self._forward()),
            backward=tuple(self._backward(is_split=False)),
            input_grad=tuple(self._backward(is_split=True)),
            weight_grad=tuple(step for layer in reversed(self.layers) for step in self._weight_grad(layer)),
            predict=tuple(self._predict()),
        )

    def _output_of(self, layer: Layer) -> Variable:
        """The variable that holds h = phi(z) after the forward of a layer."""
        if layer.activation.keeps != Keeps.PRE_ACTIVATION:
            return self.z[layer.index]
        category = Category.BOUNDARY if layer.index == self.last else Category.WORKSPACE
        return Variable(f"h{layer.index}", category, columns=layer.out_features)

    def _input_of(self, layer: Layer) -> Variable:
        """The kept variable that holds the layer's input when W needs it."""
        return self.x if layer.index == self.first else self.z[layer.index - 1]

    def _load_input(self) -> Iterator[Instruction]:
        if self.is_first:
            yield Take(self.x)
            yield Load(self.x)

    def _forward(self) -> Iterator[Instruction]:
        yield from self._load_input()
        h = self.x
        for layer in self.layers:
            x, z, h = h, self.z[layer.index], self._output_of(layer)
            yield Take(z)
            yield Affine(layer, x, z)
            if x is not self._input_of(layer):  # phi of a kept pre-activation, recomputed when W needs it
                yield Give(x)
            if h is not z:
                yield Take(h)
            if not layer.activation.is_identity:
                yield Activate(layer, z, h)
        if self.is_last:
            yield from self._loss(h)

    def _predict(self) -> Iterator[Instruction]:
        """Nothing is kept: every activation is computed in place."""
        yield from self._load_input()
        for layer in self.layers:
            x, z = self._input_of(layer), self.z[layer.index]
            yield Take(z)
            yield Affine(layer, x, z)
            yield Give(x)
            if not layer.activation.is_identity:
                yield Activate(layer, z, z)

    def _loss(self, o: Variable) -> Iterator[Instruction]:
        record, grad_o = self.record, self.g[self.last]
        columns = None if record.has_class_targets else o.columns
        targets = Variable("targets", Category.DATA, columns=columns, is_index=record.has_class_targets)
        workspace = Variable("loss_workspace", Category.WORKSPACE, columns=record.workspace_columns)
        has_workspace = record.workspace_columns > 0
        taken = [targets] + [workspace] * has_workspace + [grad_o] * (not record.is_in_place)
        yield from (Take(variable) for variable in taken)
        yield Load(targets)
        yield LossAndGrad(o, targets, grad_o, workspace if has_workspace else None, self.loss)
        given = [targets] + [workspace] * has_workspace + [o] * (not record.is_in_place)
        yield from (Give(variable) for variable in given)

    def _backward(self, *, is_split: bool) -> Iterator[Instruction]:
        for layer in reversed(self.layers):
            index = layer.index
            z, g = self.z[index], self.g[index]
            if not layer.activation.is_identity:
                yield from self._activation_grad(layer, z, g)
            if index == self.last:
                # W of this stage never reads the output of its last layer.
                if layer.activation.keeps != Keeps.NOTHING:
                    yield Give(z)
            else:
                if layer.activation.keeps == Keeps.PRE_ACTIVATION:
                    yield Activate(layer, z, z)
                if not is_split:
                    yield from self._weight_grad(self.layers[index + 1 - self.first])
            if index > self.first or not self.is_first:
                yield Take(self.g[index - 1])
                yield InputGrad(layer, g, self.g[index - 1])
        if not is_split:
            yield from self._weight_grad(self.layers[0])

    def _activation_grad(self, layer: Layer, z: Variable, g: Variable) -> Iterator[Instruction]:
        if not layer.activation.has_workspace:
            yield ActivationGrad(layer, z, g)
            return
        workspace = Variable(f"workspace{layer.index}", Category.WORKSPACE, columns=layer.out_features)
        yield Take(workspace)
        yield ActivationGrad(layer, z, g, workspace)
        yield Give(workspace)

    def _weight_grad(self, layer: Layer) -> Iterator[Instruction]:
        workspace = None
        if layer.has_bias:
            workspace = Variable(
                f"bias_workspace{layer.index}", Category.WORKSPACE, has_rows=False, columns=layer.out_features
            )
            yield Take(workspace)
        x, g = self._input_of(layer), self.g[layer.index]
        yield WeightGrad(layer, x, g, workspace)
        if workspace is not None:
            yield Give(workspace)
        yield Give(g)
        yield Give(x)


def operators(program: Sequence[Instruction]) -> Iterator[Operator]:
    """The instructions that compute or copy, without those that take and give buffers."""
    for instruction in program:
        if not isinstance(instruction, Take | Give):
            yield instruction
