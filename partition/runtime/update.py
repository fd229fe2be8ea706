"""The optimizer step of one stage: what its gradients and weights measure, then the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from partition.graph import Category
from partition.graph.pieces import piece_elements
from partition.ops import weight_grad_norms
from partition.runtime.device import RuntimeDevice
from partition.runtime.stage import Stage


class Pair(NamedTuple):
    """A weight and its gradient."""

    grad: Tensor
    weight: Tensor


class Update:
    """A stage with its optimizer."""

    def __init__(
        self, stage: Stage, optimizer: torch.optim.Optimizer, device: RuntimeDevice, workspace_bytes: int
    ) -> None:
        self.stage = stage
        self.optimizer = optimizer
        self.device = device
        self.workspace_bytes = workspace_bytes
        """What the optimizer's kernel allocates for itself."""
        self.grad_squares: list[float] = []
        """The sum of squares of every gradient, in the order of the parameters."""
        self.weight_squares: list[float] = []
        """The sum of squares of every weight, where weights are penalised."""
        self.data_grad_squares: list[float] = []
        """Where noise is measured, those of the gradients without the penalty."""

    @property
    def gradients(self) -> list[Tensor]:
        """In the order of the parameters."""
        return [parameter.grad for parameter in self.stage.parameters if parameter.grad is not None]

    @property
    def weights(self) -> list[Tensor]:
        """Those that are penalised, in the order of the layers."""
        return [of.weight_OI for of in self.stage.layers.values()] if self.stage.network.l2_penalty else []

    def _penalised_pairs(self) -> list[Pair]:
        """Gradients that the penalty has ridden in, each with its weight, where noise is measured."""
        if not self.weights or not self.stage.program.has_noise:
            return []
        return [Pair(grad=of.grad_weight_OI, weight=of.weight_OI) for of in self.stage.layers.values()]

    def measure(self) -> None:
        """Take the norms of the gradients, and of the penalised weights before they change."""
        grads, weights = self.gradients, self.weights
        pairs = self._penalised_pairs()
        squares = self._sums_of_squares([*grads, *weights], pairs)
        self.grad_squares = squares[: len(grads)]
        self.weight_squares = squares[len(grads) : len(grads) + len(weights)]
        if self.stage.program.has_noise:
            without = iter(squares[len(grads) + len(weights) :])
            self.data_grad_squares = [
                next(without) if pairs and grad.dim() == 2 else square
                for grad, square in zip(grads, self.grad_squares, strict=True)
            ]

    def apply(self, scale: float = 1.0) -> None:
        """Update the parameters with `scale` times the gradients."""
        if scale != 1.0:
            for gradient in self.gradients:
                gradient.mul_(scale)
        self.device.count(self.workspace_bytes, Category.WORKSPACE, "the optimizer's workspace")
        self.optimizer.step()
        self.device.count(-self.workspace_bytes, Category.WORKSPACE, "")

    @torch.no_grad()
    def _sums_of_squares(self, tensors: list[Tensor], pairs: list[Pair]) -> list[float]:
        """The sum of squares of each tensor, then of each pair's gradient without the penalty.

        Row by row on the device, rows together in float64: one float32 sum over all of a large tensor would be good to
        three or four digits only.
        """
        rows = [tensor if tensor.dim() == 2 else tensor.unsqueeze(0) for tensor in tensors]
        sizes = [len(of) for of in (*rows, *(pair.grad for pair in pairs))]
        norms = self.device.take((sum(sizes),), Category.WORKSPACE, "norms")
        parts = torch.split(norms, sizes)
        for of, part in zip(rows, parts, strict=False):
            torch.linalg.vector_norm(of, dim=1, out=part)
        if pairs:
            self._norms_without_penalty(pairs, parts[len(rows) :])
        squares = np.square(norms.cpu().numpy(), dtype=np.float64)
        self.device.give(norms, Category.WORKSPACE)
        ends = np.cumsum(sizes)
        return [float(part.sum()) for part in np.split(squares, ends[:-1])]

    def _norms_without_penalty(self, pairs: list[Pair], norms: Sequence[Tensor]) -> None:
        piece = self.device.take(
            (piece_elements(self.stage.program.layers),), Category.WORKSPACE, "a piece of a weight"
        )
        for pair, norms_O in zip(pairs, norms, strict=True):
            weight_grad_norms(pair.grad, pair.weight, self.stage.network.l2_penalty, norms_O, piece)
        self.device.give(piece, Category.WORKSPACE)


def clip_scale(norm: float, limit: float) -> float:
    """What gradients are multiplied by so that their norm is at most the limit, as torch's clip_grad_norm_ has it."""
    return min(1.0, limit / (norm + 1e-6))
