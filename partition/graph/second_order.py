"""The second-order graph of a stage: the programs of a Hessian-vector product, forward over reverse.

With R{f} the derivative of f along a direction V of the parameters (Pearlmutter 1994), H V = R{grad}: every operator of
forward and backward becomes two, and what the backward keeps is kept twice. A variable and its tangent share a buffer,
a *pair*: the rows of one above the rows of the other, so that one message carries both and most products are one.

    forward  [x ; Rx]  ->  [z ; Rz] = [x ; Rx] Wᵀ + [b ; x Vᵀ + Vb]  ->  [h ; Rh] = [phi(z) ; phi'(z) ⊙ Rz]  ->  ...
    loss     [o ; Ro]  ->  [Rg ; g] = [H_loss Ro ; dL/do]                         the tangent above: see W
    I        [Rg ; g]  <-  [Rg ⊙ phi' + g ⊙ phi'' ⊙ Rz ; g ⊙ phi'];   that of the layer before = [Rg ; g] W + [g V ; 0]
    W        H V (weight) += [Rg ; g]ᵀ [x ; Rx] = Rgᵀ x + gᵀ Rx;   H V (bias) += rows of Rg;   lambda V once a step

Gradients have their tangent above, everything else below: so W is one product of two whole pairs. The first stage's
input has no tangent, its layer's products are those of one half. The operators are named after those of a first
derivative, with `Pair` before them; the programs have the same actions, and run under any schedule.

Products of B rows for a layer in the middle: 3 in F, 3 in I, 2 in W, where a gradient has 1, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from partition.errors import PartitionError
from partition.graph.activations import Keeps
from partition.graph.layers import Layer
from partition.graph.network import Network
from partition.graph.program import Category, Give, Instruction, Load, StageProgram, Take, Variable


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


PairOperator = PairAffine | PairActivate | PairActivationGrad | PairInputGrad | PairWeightGrad | PairLoss


def build_second_order_program(network: Network, first_layer: int, last_layer: int) -> StageProgram:
    """The programs of a Hessian-vector product of the stage of layers first_layer..last_layer, inclusive.

    Raises PartitionError for a network of blocks.
    """
    return _Builder(network, first_layer, last_layer).build()


def _activate(layer: Layer, z: Pair, h: Pair) -> Iterator[Instruction]:
    if not layer.activation.has_workspace:
        yield PairActivate(layer, z, h)
        return
    workspace = Variable(f"workspace{layer.index}", Category.WORKSPACE, columns=layer.out_features)
    yield Take(workspace)
    yield PairActivate(layer, z, h, workspace)
    yield Give(workspace)


def _plain(network: Network) -> tuple[Layer, ...]:
    layers = tuple(layer for layer in network.layers if isinstance(layer, Layer))
    if len(layers) < network.num_layers:
        raise PartitionError(
            "a Hessian-vector product through stages is of affine layers and activations, this model has blocks; "
            "take model.hidden_features, or differentiate `build_module` on one device"
        )
    return layers


class _Builder:
    """Names the variables of one stage once and lists its instructions."""

    def __init__(self, network: Network, first_layer: int, last_layer: int) -> None:
        self.layers = _plain(network)[first_layer : last_layer + 1]
        self.first, self.last = first_layer, last_layer
        self.is_first, self.is_last = first_layer == 0, last_layer == network.num_layers - 1
        self.record = network.loss
        first, final = self.layers[0], self.layers[-1]
        # Inputs do not depend on parameters: the first stage's have no tangent.
        self.x = (Variable("x", Category.DATA, columns=first.in_features) if self.is_first
                  else Pair("x", Category.ACTIVATIONS, columns=first.in_features))  # fmt: skip
        of_layer = {layer.index: layer.out_features for layer in self.layers}
        self.z = {index: Pair(f"z{index}", Category.ACTIVATIONS, columns=of_layer[index]) for index in of_layer}
        self.g = {index: Pair(f"g{index}", Category.ACTIVATIONS, columns=of_layer[index]) for index in of_layer}
        self.g[first_layer - 1] = Pair(f"g{first_layer - 1}", Category.BOUNDARY, columns=first.in_features)
        if not self.is_last:
            if final.activation.keeps == Keeps.NOTHING:
                self.z[last_layer] = Pair(f"z{last_layer}", Category.BOUNDARY, columns=final.out_features)
            self.g[last_layer] = Pair(f"g{last_layer}", Category.BOUNDARY, columns=final.out_features)
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
            predict=(),
        )

    def _output_of(self, layer: Layer) -> Pair:
        """The pair that holds h and Rh after the forward of a layer."""
        if layer.activation.keeps != Keeps.PRE_ACTIVATION:
            return self.z[layer.index]
        category = Category.BOUNDARY if layer.index == self.last else Category.WORKSPACE
        return Pair(f"h{layer.index}", category, columns=layer.out_features)

    def _input_of(self, layer: Layer) -> Variable:
        """The kept variable that holds the layer's input when W needs it."""
        return self.x if layer.index == self.first else self.z[layer.index - 1]

    def _forward(self) -> Iterator[Instruction]:
        if self.is_first:
            yield Take(self.x)
            yield Load(self.x)
        x = self.x
        for layer in self.layers:
            z, h = self.z[layer.index], self._output_of(layer)
            yield Take(z)
            yield PairAffine(layer, x, z)
            if x is not self._input_of(layer):
                yield Give(x)
            if h is not z:
                yield Take(h)
            if not layer.activation.is_identity:
                yield from _activate(layer, z, h)
            x = h
        if self.is_last:
            yield from self._loss(self.z[self.last])

    def _loss(self, o: Pair) -> Iterator[Instruction]:
        record, grad_o = self.record, self.g[self.last]
        columns = None if record.has_class_targets else o.columns
        targets = Variable("targets", Category.DATA, columns=columns, is_index=record.has_class_targets)
        workspace = column = None
        if record.has_second_workspace:
            workspace = Variable("loss_workspace", Category.WORKSPACE, columns=o.columns)
        if record.workspace_columns:
            column = Variable("loss_column", Category.WORKSPACE, columns=record.workspace_columns)
        passing = [targets, *(one for one in (workspace, column) if one is not None)]
        yield from (Take(variable) for variable in (*passing, grad_o))
        yield Load(targets)
        yield PairLoss(o, targets, grad_o, workspace, column, self.loss)
        yield from (Give(variable) for variable in (*passing, o))

    def _backward(self, *, is_split: bool) -> Iterator[Instruction]:
        for layer in reversed(self.layers):
            index, activation = layer.index, layer.activation
            z, g = self.z[index], self.g[index]
            if not activation.is_identity:
                yield from self._activation_grad(layer)
            if index == self.last:
                # W of this stage never reads the output of its last layer.
                if activation.keeps != Keeps.NOTHING:
                    yield Give(z)
            else:
                if activation.keeps == Keeps.PRE_ACTIVATION:
                    yield from _activate(layer, z, z)
                if not is_split:
                    yield from self._weight_grad(self.layers[index + 1 - self.first])
            if index > self.first or not self.is_first:
                yield Take(self.g[index - 1])
                yield PairInputGrad(layer, g, self.g[index - 1])
        if not is_split:
            yield from self._weight_grad(self.layers[0])

    def _activation_grad(self, layer: Layer) -> Iterator[Instruction]:
        workspaces = tuple(
            Variable(f"second_workspace{place}", Category.WORKSPACE, columns=layer.out_features)
            for place in range(layer.activation.second_workspaces)
        )
        yield from (Take(variable) for variable in workspaces)
        yield PairActivationGrad(layer, self.z[layer.index], self.g[layer.index], workspaces)
        yield from (Give(variable) for variable in workspaces)

    def _weight_grad(self, layer: Layer) -> Iterator[Instruction]:
        workspace = None
        if layer.has_bias:
            name = f"bias_workspace{layer.index}"
            workspace = Variable(name, Category.WORKSPACE, has_rows=False, columns=layer.out_features)
            yield Take(workspace)
        x, g = self._input_of(layer), self.g[layer.index]
        yield PairWeightGrad(layer, x, g, workspace)
        if workspace is not None:
            yield Give(workspace)
        yield Give(g)
        yield Give(x)
