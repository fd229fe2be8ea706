"""The optimizer step of one stage: the penalty, what its gradients and weights measure, then the update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from partition.graph import Category
from partition.runtime.device import RuntimeDevice
from partition.runtime.parameters import Parameters
from partition.runtime.stage import Stage, wide_dtype


class _Measured(NamedTuple):
    """A tensor whose sum of squares a step takes."""

    kinds: tuple[Literal["gradient", "data gradient", "weight"], ...]
    """What the sum is: of a gradient, of one without the penalty, of a weight that is penalised."""
    rows: Tensor
    """Two axes; a bias is one row."""
    weight: Tensor | None = None
    """Of whose penalty the gradient is added to the rows before."""


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
        """Take norms, and in between, once a step, grad_weight += lambda W for every weight that is penalised.

        Norms of the weights before they change, of the gradients, and where noise is measured of those without the
        penalty, which has none. The gradients are whole by now, summed over microbatches and replicas.
        """
        measured = [one for of in self.stage.layers.values() for one in self._measured_of(of)]
        pairs = list(zip(measured, self._sums(measured), strict=True))
        self.grad_squares = [number for one, number in pairs if "gradient" in one.kinds]
        self.weight_squares = [number for one, number in pairs if "weight" in one.kinds]
        if self.stage.program.has_noise:
            self.data_grad_squares = [number for one, number in pairs if "data gradient" in one.kinds]

    def _measured_of(self, layer: Parameters) -> Iterator[_Measured]:
        """Of one layer, one after the other while the caches hold its weight and its gradient."""
        weight, grad = layer.weight_OI, layer.grad_weight_OI
        if not self.stage.network.l2_penalty or weight.dim() == 1:  # norms have weights that are not penalised
            yield _Measured(("gradient", "data gradient"), grad if grad.dim() == 2 else grad.unsqueeze(0))
        else:
            if self.stage.program.has_noise:
                yield _Measured(("data gradient",), grad)
            yield _Measured(("gradient",), grad, weight)
            yield _Measured(("weight",), weight)
        if layer.grad_bias_O is not None:
            yield _Measured(("gradient", "data gradient"), layer.grad_bias_O.unsqueeze(0))

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
        """The sum of squares of each: row by row on the device, rows together in float64.

        One float32 sum over all of a large tensor would be good to three or four digits only.
        """
        sizes = [len(one.rows) for one in measured]
        norms = self.device.take((sum(sizes),), Category.WORKSPACE, "norms", wide_dtype(self.stage.program))
        for one, of_rows in zip(measured, torch.split(norms, sizes), strict=True):
            if one.weight is not None:
                one.rows.add_(one.weight, alpha=self.stage.network.l2_penalty)
            torch.linalg.vector_norm(one.rows, dim=1, out=of_rows)
        squares = np.square(norms.cpu().numpy(), dtype=np.float64)
        self.device.give(norms, Category.WORKSPACE)
        return [float(of.sum()) for of in np.split(squares, np.cumsum(sizes)[:-1])]


def clip_scale(norm: float, limit: float) -> float:
    """What gradients are multiplied by so that their norm is at most the limit, as torch's clip_grad_norm_ has it."""
    return min(1.0, limit / (norm + 1e-6))
