"""The optimizer step of a stage: the norms of the gradients, the penalty where there is one, the update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from partition.costs.allocator import AllocatorRules
from partition.costs.block_work import Work
from partition.costs.hardware import Device
from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect
from partition.costs.optimizer import OptimizerRecord
from partition.costs.work import seconds_on
from partition.graph import Category, Layer
from partition.graph.layers import Weighted
from partition.graph.pieces import piece_elements


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The optimizer step of a stage."""

    memory: MemoryEffect
    kernels: tuple[Work, ...]
    elements: int
    """Of all parameters."""

    def seconds(self, device: Device) -> float:
        """Seconds on a device."""
        if device.profile is not None:
            return device.profile.update_s(self.elements)
        return seconds_on(device, self.kernels)


@dataclass(frozen=True, kw_only=True)
class StepWorkspace:
    """What a step takes of memory and gives back.

    The norms are read back before the update runs, so the workspaces are never alive together; those of the penalty
    are a number beside the norms, and then a piece and the norms of its rows.
    """

    norms_bytes: int
    product_bytes: int = 0
    piece_bytes: int = 0
    piece_norms_bytes: int = 0
    update_bytes: int

    def effect(self, rules: AllocatorRules) -> MemoryEffect:
        """Bytes taken and given, in order."""
        norms, product, piece, piece_norms, update = (
            (MemoryStep(0, num_bytes, Category.WORKSPACE), MemoryStep(0, -num_bytes, Category.WORKSPACE))
            for num_bytes in (
                self.norms_bytes,
                self.product_bytes,
                self.piece_bytes,
                self.piece_norms_bytes,
                self.update_bytes,
            )
        )
        return memory_effect([norms[0], *product, norms[1], piece[0], *piece_norms, piece[1], *update], 1, rules)


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """The step of training that a stage ends a minibatch with."""

    parts: tuple[Weighted, ...]
    """With parameters, of the stage."""
    optimizer: OptimizerRecord
    itemsize: int
    wide_itemsize: int
    """Bytes of a parameter, of a gradient of one, of a norm."""
    l2_penalty: float
    has_noise: bool

    def cost(self, rules: AllocatorRules) -> StepCost:
        """Bytes and kernels."""
        elements = sum(part.parameter_elements for part in self.parts)
        return StepCost(
            memory=self._workspace.effect(rules),
            kernels=(self._norm_work(elements), self._update_work(elements)),
            elements=elements,
        )

    @property
    def _workspace(self) -> StepWorkspace:
        rows = max((part.penalised_rows for part in self.parts), default=0) if self._is_penalty_removed else 0
        return StepWorkspace(
            norms_bytes=self._num_norms * self.wide_itemsize,
            # The number that a product is made in, then the norms of the most rows that a weight has.
            product_bytes=self.wide_itemsize if rows else 0,
            piece_bytes=self._piece_bytes,
            piece_norms_bytes=rows * self.wide_itemsize,
            update_bytes=self.optimizer.workspace_bytes,
        )

    @property
    def _num_norms(self) -> int:
        """Numbers that the step reads back: a norm for each row of a gradient, and of a weight that is penalised.

        Where the penalty is taken off, the product of both besides.
        """
        penalised = [part.penalised_rows for part in self.parts if part.penalised_rows and self.l2_penalty]
        return num_rows(self.parts) + sum(penalised) + self._is_penalty_removed * len(penalised)

    @property
    def _is_penalty_removed(self) -> bool:
        """Whether the step takes the norms of the gradients without the penalty too, which has no noise."""
        return self.has_noise and self.l2_penalty != 0

    @property
    def _piece_bytes(self) -> int:
        """The workspace in which the penalty is taken off the gradients, piece by piece."""
        layers = [part for part in self.parts if isinstance(part, Layer)]
        return piece_elements(layers) * self.itemsize if self._is_penalty_removed else 0

    def _norm_work(self, elements: int) -> Work:
        weights = sum(part.weight_elements for part in self.parts if part.penalised_rows)
        elements += (weights if self.l2_penalty else 0) + (2 * weights if self._is_penalty_removed else 0)
        return Work(2 * elements, elements * self.wide_itemsize)

    def _update_work(self, elements: int) -> Work:
        # The gradient is read; the parameter and every state copy are read and written.
        passes = 3 + 2 * self.optimizer.state_copies
        return Work(self.optimizer.flop_per_element * elements, passes * elements * self.wide_itemsize)


def num_rows(parts: Iterable[Weighted]) -> int:
    """Rows of all weights and biases, a bias being one: each has a norm of its own."""
    return sum(math.prod(part.weight_shape[:-1]) + part.has_bias for part in parts)
