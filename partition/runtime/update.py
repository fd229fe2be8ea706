"""The optimizer step of one stage: what its gradients and weights measure, then the update."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from partition.graph import Category
from partition.runtime.device import RuntimeDevice
from partition.runtime.stage import Stage


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

    @property
    def gradients(self) -> list[Tensor]:
        """In the order of the parameters."""
        return [parameter.grad for parameter in self.stage.parameters if parameter.grad is not None]

    def measure(self) -> None:
        """Take the norms of the gradients, and of the penalised weights before they change."""
        grads = self.gradients
        # The penalty is over the weights of layers, which have two dimensions.
        all_weights = (of.weight_OI for of in self.stage.layers.values() if of.weight_OI.dim() == 2)
        weights = list(all_weights) if self.stage.network.l2_penalty else []
        squares = self._sums_of_squares([*grads, *weights])
        self.grad_squares, self.weight_squares = squares[: len(grads)], squares[len(grads) :]

    def apply(self, scale: float = 1.0) -> None:
        """Update the parameters with `scale` times the gradients."""
        if scale != 1.0:
            for gradient in self.gradients:
                gradient.mul_(scale)
        self.device.count(self.workspace_bytes, Category.WORKSPACE, "the optimizer's workspace")
        self.optimizer.step()
        self.device.count(-self.workspace_bytes, Category.WORKSPACE, "")

    @torch.no_grad()
    def _sums_of_squares(self, tensors: list[Tensor]) -> list[float]:
        """The sum of squares of each tensor: row by row on the device, rows together in float64.

        One float32 sum over all of a large tensor would be good to three or four digits only.
        """
        rows = [tensor if tensor.dim() == 2 else tensor.unsqueeze(0) for tensor in tensors]
        norms = self.device.take((sum(map(len, rows)),), Category.WORKSPACE, "norms")
        parts = torch.split(norms, [len(of) for of in rows])
        for of, part in zip(rows, parts, strict=True):
            torch.linalg.vector_norm(of, dim=1, out=part)
        squares = np.square(norms.cpu().numpy(), dtype=np.float64)
        self.device.give(norms, Category.WORKSPACE)
        ends = np.cumsum([len(of) for of in rows])
        return [float(part.sum()) for part in np.split(squares, ends[:-1])]


def clip_scale(norm: float, limit: float) -> float:
    """What gradients are multiplied by so that their norm is at most the limit, as torch's clip_grad_norm_ has it."""
    return min(1.0, limit / (norm + 1e-6))
