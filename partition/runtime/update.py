"""The optimizer step of one stage: what its gradients and weights measure, then the update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from partition.graph import Category, Layer
from partition.graph.pieces import piece_elements
from partition.ops import weight_grad_norms
from partition.runtime.device import RuntimeDevice
from partition.runtime.stage import Parameters, Stage, wide_dtype


class _Measured(NamedTuple):
    """Something whose sum of squares a step takes: a tensor, or a gradient without the penalty on its weight."""

    kind: Literal["gradient", "weight", "without penalty"]
    rows: Tensor
    """Two axes; a bias is one row."""
    weight: Tensor | None = None


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

    def measure(self) -> None:
        """Take the norms of the gradients, and of the penalised weights before they change."""
        measured = [one for of in self.stage.layers.values() for one in self._measured_of(of)]
        pairs = list(zip(measured, self._sums_of_squares(measured), strict=True))
        self.grad_squares = [square for one, square in pairs if one.kind == "gradient"]
        self.weight_squares = [square for one, square in pairs if one.kind == "weight"]
        if self.stage.program.has_noise:
            without = iter([square for one, square in pairs if one.kind == "without penalty"])
            gradients = zip(self.gradients, self.grad_squares, strict=True)
            self.data_grad_squares = [next(without, square) if of.dim() == 2 else square for of, square in gradients]

    def _measured_of(self, layer: Parameters) -> Iterator[_Measured]:
        """Of one layer, one after the other while the caches hold its weight and its gradient."""
        grad = layer.grad_weight_OI
        yield _Measured("gradient", grad if grad.dim() == 2 else grad.unsqueeze(0))  # a norm's weight is one row
        if self.stage.network.l2_penalty and layer.weight_OI.dim() == 2:  # norms have weights that are not penalised
            yield _Measured("weight", layer.weight_OI)
            if self.stage.program.has_noise:
                yield _Measured("without penalty", layer.grad_weight_OI, layer.weight_OI)
        if layer.grad_bias_O is not None:
            yield _Measured("gradient", layer.grad_bias_O.unsqueeze(0))

    @property
    def is_finite(self) -> bool:
        """Whether the gradients that were measured are finite."""
        return math.isfinite(sum(self.grad_squares))

    def apply(self, scale: float = 1.0) -> None:
        """Update the parameters with `scale` times the gradients."""
        if scale != 1.0:
            for gradient in self.gradients:
                gradient.mul_(scale)
        self.device.count(self.workspace_bytes, Category.WORKSPACE, "the optimizer's workspace")
        self.optimizer.step()
        self.device.count(-self.workspace_bytes, Category.WORKSPACE, "")

    @torch.no_grad()
    def _sums_of_squares(self, measured: Sequence[_Measured]) -> list[float]:
        """The sum of squares of each: row by row on the device, rows together in float64.

        One float32 sum over all of a large tensor would be good to three or four digits only.
        """
        sizes = [len(one.rows) for one in measured]
        norms = self.device.take((sum(sizes),), Category.WORKSPACE, "norms", wide_dtype(self.stage.program))
        self._fill(measured, torch.split(norms, sizes))
        squares = np.square(norms.cpu().numpy(), dtype=np.float64)
        self.device.give(norms, Category.WORKSPACE)
        ends = np.cumsum(sizes)
        return [float(part.sum()) for part in np.split(squares, ends[:-1])]

    def _fill(self, measured: Sequence[_Measured], norms: Sequence[Tensor]) -> None:
        """The norms of the rows of each."""
        piece = None
        if any(one.weight is not None for one in measured):
            layers = [part for unit in self.stage.program.layers for part in unit.weighted if isinstance(part, Layer)]
            size = piece_elements(layers)
            piece = self.device.take((size,), Category.WORKSPACE, "a piece of a weight", wide_dtype(self.stage.program))
        for one, norms_R in zip(measured, norms, strict=True):
            if one.weight is None or piece is None:
                torch.linalg.vector_norm(one.rows, dim=1, out=norms_R)
            else:
                weight_grad_norms(one.rows, one.weight, self.stage.network.l2_penalty, norms_R, piece)
        if piece is not None:
            self.device.give(piece, Category.WORKSPACE)


def clip_scale(norm: float, limit: float) -> float:
    """What gradients are multiplied by so that their norm is at most the limit, as torch's clip_grad_norm_ has it."""
    return min(1.0, limit / (norm + 1e-6))
