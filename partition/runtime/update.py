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
from partition.runtime.parameters import Parameters
from partition.runtime.stage import Stage, wide_dtype

CANCELLED = 1e-2
"""Below this part of their sum the difference of two squares has lost too many of float32's digits."""


class _Measured(NamedTuple):
    """What a step takes of a tensor: the sum of squares, or the inner product of a gradient with its weight."""

    kind: Literal["gradient", "weight", "product"]
    rows: Tensor
    """Two axes; a bias is one row."""
    weight: Tensor | None = None

    @property
    def num_numbers(self) -> int:
        """A norm for each row, or the product."""
        return len(self.rows) if self.weight is None else 1


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
        pairs = list(zip(measured, self._sums(measured), strict=True))
        self.grad_squares = [number for one, number in pairs if one.kind == "gradient"]
        self.weight_squares = [number for one, number in pairs if one.kind == "weight"]
        if self.stage.program.has_noise:
            self._take_penalty_off([number for one, number in pairs if one.kind == "product"])

    def _measured_of(self, layer: Parameters) -> Iterator[_Measured]:
        """Of one layer, one after the other while the caches hold its weight and its gradient."""
        grad = layer.grad_weight_OI
        yield _Measured("gradient", grad if grad.dim() == 2 else grad.unsqueeze(0))  # a norm's weight is one row
        if self.stage.network.l2_penalty and layer.weight_OI.dim() == 2:  # norms have weights that are not penalised
            yield _Measured("weight", layer.weight_OI)
            if self.stage.program.has_noise:
                yield _Measured("product", layer.grad_weight_OI, layer.weight_OI)
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
    def _sums(self, measured: Sequence[_Measured]) -> list[float]:
        """The sum of squares of each: row by row on the device, rows together in float64; or its product.

        One float32 sum over all of a large tensor would be good to three or four digits only.
        """
        sizes = [one.num_numbers for one in measured]
        norms = self.device.take((sum(sizes),), Category.WORKSPACE, "norms", wide_dtype(self.stage.program))
        for one, numbers in zip(measured, torch.split(norms, sizes), strict=True):
            if one.weight is None:
                torch.linalg.vector_norm(one.rows, dim=1, out=numbers)
            else:
                # While the caches hold both; torch computes the product aside, in a number of its own.
                self.device.count(norms.itemsize, Category.WORKSPACE, "a product")
                numbers.copy_(torch.dot(one.rows.view(-1), one.weight.view(-1)))
                self.device.count(-norms.itemsize, Category.WORKSPACE, "")
        found = np.split(norms.cpu().numpy().astype(np.float64), np.cumsum(sizes)[:-1])
        self.device.give(norms, Category.WORKSPACE)
        return [float(np.square(of).sum() if one.weight is None else of[0])
                for one, of in zip(measured, found, strict=True)]  # fmt: skip

    def _take_penalty_off(self, products: Sequence[float]) -> None:
        """|G - lambda W|^2 = |G|^2 - 2 lambda G·W + lambda^2 |W|^2, or from the tensors where digits cancel."""
        gradients = zip(self.gradients, self.grad_squares, strict=True)
        if not products:
            self.data_grad_squares = [square for _, square in gradients]
            return
        l2_penalty, weights = self.stage.network.l2_penalty, zip(self.weight_squares, products, strict=True)
        piece, norms = self._take_piece()
        found = []
        for grad, square in gradients:
            if grad.dim() == 2:
                weight_square, product = next(weights)
                total = square + l2_penalty**2 * weight_square
                square = total - 2 * l2_penalty * product
                if not square > CANCELLED * total:
                    square = self._difference(grad, piece, norms)
            found.append(square)
        self.data_grad_squares = found
        for tensor in (piece, norms):
            self.device.give(tensor, Category.WORKSPACE)

    def _take_piece(self) -> tuple[Tensor, Tensor]:
        """Buffers for a piece of any weight and for the norms of its rows: taken even where nothing cancels."""
        layers = [part for unit in self.stage.program.layers for part in unit.weighted if isinstance(part, Layer)]
        sizes = (piece_elements(layers), max(layer.penalised_rows for layer in layers))
        dtype = wide_dtype(self.stage.program)
        piece, norms = (self.device.take((size,), Category.WORKSPACE, "a piece of a weight", dtype) for size in sizes)
        return piece, norms

    @torch.no_grad()
    def _difference(self, grad: Tensor, piece: Tensor, norms: Tensor) -> float:
        """The sum of squares of a gradient without the penalty that rode in its product, piece by piece."""
        weight = next(of.weight_OI for of in self.stage.layers.values() if of.grad_weight_OI is grad)
        norms_O = norms[: len(grad)]
        weight_grad_norms(grad, weight, self.stage.network.l2_penalty, norms_O, piece)
        return float(np.square(norms_O.cpu().numpy(), dtype=np.float64).sum())


def clip_scale(norm: float, limit: float) -> float:
    """What gradients are multiplied by so that their norm is at most the limit, as torch's clip_grad_norm_ has it."""
    return min(1.0, limit / (norm + 1e-6))
