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
from partition.graph import Category
from partition.graph.layers import Weighted


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

    The norms are read back before the update runs, so the two workspaces are never alive together.
    """

    norms_bytes: int
    update_bytes: int

    def effect(self, rules: AllocatorRules) -> MemoryEffect:
        """Bytes taken and given, in order."""
        steps = [
            MemoryStep(0, num_bytes, Category.WORKSPACE)
            for size in (self.norms_bytes, self.update_bytes)
            for num_bytes in (size, -size)
        ]
        return memory_effect(steps, 1, rules)


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """The step of training that a stage ends a minibatch with."""

    parts: tuple[Weighted, ...]
    """With parameters, of the stage."""
    optimizer: OptimizerRecord
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
        return StepWorkspace(
            norms_bytes=self._num_norms * self.wide_itemsize, update_bytes=self.optimizer.workspace_bytes
        )

    @property
    def _num_norms(self) -> int:
        """Numbers that the step reads back: a norm for each row of a gradient, and of a weight that is penalised.

        Where noise is measured, one more for each row of a gradient that the penalty is added to: before it is.
        """
        if not self.l2_penalty:
            return num_rows(self.parts)
        return num_rows(self.parts) + (1 + self.has_noise) * sum(part.penalised_rows for part in self.parts)

    def _norm_work(self, elements: int) -> Work:
        """Of the penalty too, whose gradient is added here: both are read, and the sum is written."""
        if not self.l2_penalty:
            return Work(2 * elements, elements * self.wide_itemsize)
        weights = sum(part.weight_elements for part in self.parts if part.penalised_rows)
        elements += (1 + self.has_noise) * weights
        return Work(2 * (elements + weights), (elements + 3 * weights) * self.wide_itemsize)

    def _update_work(self, elements: int) -> Work:
        # The gradient is read; the parameter and every state copy are read and written.
        passes = 3 + 2 * self.optimizer.state_copies
        return Work(self.optimizer.flop_per_element * elements, passes * elements * self.wide_itemsize)


def num_rows(parts: Iterable[Weighted]) -> int:
    """Rows of all weights and biases, a bias being one: each has a norm of its own."""
    return sum(math.prod(part.weight_shape[:-1]) + part.has_bias for part in parts)
