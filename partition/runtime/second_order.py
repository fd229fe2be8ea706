"""A stage of a Hessian-vector product: the executor, the channels and the ledger of training, other programs.

What a message carries, a frame holds and a schedule orders are pairs of variables and tangents; the parameters'
gradient buffers hold H V. So every split and schedule that trains also multiplies by the Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from partition.graph import Category, Keeps, Program
from partition.graph.pair_operators import (
    PairActivate,
    PairActivationGrad,
    PairAffine,
    PairInputGrad,
    PairLoss,
    PairWeightGrad,
)
from partition.ops import ACTIVATIONS, affine_bias_grad, affine_weight_grad
from partition.ops.pairs import activate_pair, activation_grad_pair, affine_input_grad_pair, affine_pair, dot_rows
from partition.runtime.block_pair_kernels import BLOCK_PAIR_METHODS
from partition.runtime.device import TensorSource
from partition.runtime.parameters import Parameters
from partition.runtime.stage import INSTRUCTION_METHODS, Frame, Stage
from partition.runtime.update import Update


class SecondOrderStage(Stage):
    """Contiguous layers with a direction for each parameter; H times it goes into the buffers of the gradients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.directions = {index: _take_direction(index, of, self.source) for index, of in self.layers.items()}
        self.number = self.source.take((), Category.WORKSPACE, "the number that kernels multiply by")
        self.is_adding = False
        """The next product is added to the one before: examples of one Hessian that come in several minibatches."""

    @property
    def products(self) -> list[Tensor]:
        """H V, in the order of the parameters."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @property
    def direction_tensors(self) -> list[Tensor]:
        """V, in the order of the parameters."""
        return [tensor for of in self.directions.values() for tensor in of.tensors]

    def run(self, program: Program, frame: Frame) -> None:
        """Interpret a program on the tensors of a frame."""
        for instruction in program:
            METHODS[type(instruction)](self, instruction, frame)

    def _affine_pair(self, instruction: PairAffine, frame: Frame) -> None:
        layer, x, z = instruction
        of, along = self.layers[layer.index], self.directions[layer.index]
        affine_pair(
            frame.tensors[x.name], of.weight_OI, of.bias_O, along.weight_OI, along.bias_O, frame.tensors[z.name]
        )

    def _activate_pair(self, instruction: PairActivate, frame: Frame) -> None:
        layer, z, h, workspace = instruction
        record = layer.activation
        is_output_kept = record.keeps == Keeps.OUTPUT
        activate_pair(
            ACTIVATIONS[record.name],
            frame.tensors[z.name],
            frame.tensors[h.name],
            is_output_kept=is_output_kept,
            workspace_BO=None if workspace is None else frame.tensors[workspace.name],
        )

    def _activation_grad_pair(self, instruction: PairActivationGrad, frame: Frame) -> None:
        layer, kept, grad, workspaces = instruction
        activation_grad_pair(
            ACTIVATIONS[layer.activation.name],
            frame.tensors[grad.name],
            frame.tensors[kept.name],
            [frame.tensors[workspace.name] for workspace in workspaces],
            self.number,
        )

    def _input_grad_pair(self, instruction: PairInputGrad, frame: Frame) -> None:
        layer, grad_z, grad_x = instruction
        weight_OI, direction_OI = self.layers[layer.index].weight_OI, self.directions[layer.index].weight_OI
        affine_input_grad_pair(frame.tensors[grad_z.name], weight_OI, direction_OI, frame.tensors[grad_x.name])

    def _weight_grad_pair(self, instruction: PairWeightGrad, frame: Frame) -> None:
        layer, x, grad_z, workspace = instruction
        of, grad_z_2BO = self.layers[layer.index], frame.tensors[grad_z.name]
        x_rows, is_first = frame.tensors[x.name], frame.is_first and not self.is_adding
        # Two whole pairs, or the input of the network and the tangent of the gradient.
        affine_weight_grad(x_rows, grad_z_2BO[: x_rows.shape[0]], is_first, of.grad_weight_OI)
        if workspace is not None and of.grad_bias_O is not None:
            affine_bias_grad(grad_z_2BO[: frame.rows], is_first, of.grad_bias_O, frame.tensors[workspace.name])

    def _loss_pair(self, instruction: PairLoss, frame: Frame) -> None:
        o, targets, grad_o, workspace, column, _ = instruction
        loss, rows = self.loss, frame.rows
        o_2Bq, grad_2Bq, labels = (frame.tensors[of.name] for of in (o, grad_o, targets))
        workspace_Bq, workspace_B1 = (frame.tensors[of.name] if of else None for of in (workspace, column))
        tangent_Bq = grad_2Bq[:rows].copy_(o_2Bq[rows:])
        loss.tangent(o_2Bq[:rows], labels, frame.weight, tangent_Bq, workspace_Bq, workspace_B1, self.number)
        loss.forward(o_2Bq[:rows], labels, frame.weight, grad_2Bq[rows:], workspace_B1, self.losses_M[frame.microbatch])


METHODS: dict[type, Callable[[Any, Any, Frame], None]] = {
    **INSTRUCTION_METHODS,
    PairAffine: SecondOrderStage._affine_pair,
    PairActivate: SecondOrderStage._activate_pair,
    PairActivationGrad: SecondOrderStage._activation_grad_pair,
    PairInputGrad: SecondOrderStage._input_grad_pair,
    PairWeightGrad: SecondOrderStage._weight_grad_pair,
    PairLoss: SecondOrderStage._loss_pair,
    **BLOCK_PAIR_METHODS,
}


def _take_direction(index: int, of: Parameters, source: TensorSource) -> Parameters:
    """Tensors of the shapes of a layer's parameters, with H times them beside them."""
    weight = source.take(tuple(of.weight_OI.shape), Category.OPTIMIZER, f"direction of layer {index}")
    bias = None
    if of.bias_O is not None:
        bias = source.take(tuple(of.bias_O.shape), Category.OPTIMIZER, f"direction of layer {index}")
    return Parameters(weight_OI=weight, grad_weight_OI=of.grad_weight_OI, bias_O=bias, grad_bias_O=of.grad_bias_O)


class Measured(Update):
    """What stands for the optimizer: a product is measured and no parameter changed."""

    stage: SecondOrderStage

    def measure(self) -> None:
        """Nothing yet: `squares` asks for what is wanted once the whole product is there."""

    def apply(self, scale: float = 1.0) -> None:
        """No parameter moves."""

    @torch.no_grad()
    def add_penalty(self) -> None:
        """H V += lambda V: the penalty bends every weight of a layer alike, and has no part in examples."""
        l2_penalty = self.stage.network.l2_penalty
        if l2_penalty:
            for product, direction in zip(self.stage.products, self.stage.direction_tensors, strict=True):
                if product.dim() == 2:
                    product.add_(direction, alpha=l2_penalty)

    @torch.no_grad()
    def dots(self, ones: list[Tensor], others: list[Tensor]) -> list[float]:
        """The inner product of every tensor with its counterpart: rows on the device, rows together in float64."""
        matrices = [[tensor if tensor.dim() == 2 else tensor.unsqueeze(0) for tensor in of] for of in (ones, others)]
        lengths = [len(matrix) for matrix in matrices[0]]
        rows = self.device.take((sum(lengths),), Category.WORKSPACE, "inner products")
        for one, other, part in zip(*matrices, torch.split(rows, lengths), strict=True):
            dot_rows(one, other, part)
        found = [float(part.double().sum()) for part in torch.split(rows.cpu(), lengths)]
        self.device.give(rows, Category.WORKSPACE)
        return found
