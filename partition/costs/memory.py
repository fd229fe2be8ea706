"""Bytes that a program takes and gives: what stays after it, and the most that is alive while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from partition.costs.allocator import EXACT, AllocatorRules
from partition.graph import Category, Program
from partition.graph.program import Give, Take


class MemoryStep(NamedTuple):
    """One buffer taken (positive) or given (negative): bytes for each example and bytes besides."""

    bytes_per_row: int
    other_bytes: int
    category: Category

    def num_bytes(self, rows: int, rules: AllocatorRules) -> int:
        """What the allocator gives, or gets back, for a microbatch of `rows` examples."""
        return rules.block_bytes(self.bytes_per_row * rows + self.other_bytes)


class Effect(Protocol):
    """The bytes of one action, relative to those alive before it."""

    @property
    def net_bytes(self) -> int:
        """Change that stays after the action."""
        ...

    @property
    def peak_bytes(self) -> int:
        """Highest excess over the bytes before the action, never below 0."""
        ...

    @property
    def net_by_category(self) -> Mapping[Category, int]:
        """What stays, by what it is for."""
        ...

    @property
    def peak_by_category(self) -> Mapping[Category, int]:
        """What the excess consists of at its peak."""
        ...


@dataclass(frozen=True, kw_only=True)
class MemoryEffect:
    """The bytes of one action, step by step."""

    net_bytes: int
    peak_bytes: int
    steps: tuple[MemoryStep, ...]
    rows: int
    peak_position: int
    """Number of steps until the (first) instant of the peak."""
    rules: AllocatorRules = EXACT

    @property
    def net_by_category(self) -> Mapping[Category, int]:
        """What stays, by what it is for."""
        return self._sums(self.steps)

    @property
    def peak_by_category(self) -> Mapping[Category, int]:
        """What the excess consists of at its peak."""
        return self._sums(self.steps[: self.peak_position])

    def _sums(self, steps: Sequence[MemoryStep]) -> Mapping[Category, int]:
        sums: Counter[Category] = Counter()
        for step in steps:
            sums[step.category] += step.num_bytes(self.rows, self.rules)
        return sums


def memory_steps(program: Program, itemsize: int) -> tuple[MemoryStep, ...]:
    """What a program takes and gives, in order, for numbers of `itemsize` bytes."""
    steps = []
    for instruction in program:
        if isinstance(instruction, Take | Give):
            variable, sign = instruction.variable, 1 if isinstance(instruction, Take) else -1
            num_bytes = sign * variable.num_bytes(1, itemsize)
            amounts = (num_bytes, 0) if variable.has_rows else (0, num_bytes)
            steps.append(MemoryStep(*amounts, variable.category))
    return tuple(steps)


def memory_effect(steps: Sequence[MemoryStep], rows: int, rules: AllocatorRules = EXACT) -> MemoryEffect:
    """The effect of a program on a microbatch of `rows` examples; every buffer is rounded on its own."""
    total = peak = at_peak = 0
    for position, (bytes_per_row, other_bytes, _) in enumerate(steps, start=1):
        num_bytes = bytes_per_row * rows + other_bytes
        total += num_bytes if rules is EXACT else rules.block_bytes(num_bytes)
        if total > peak:
            peak, at_peak = total, position
    return MemoryEffect(
        net_bytes=total, peak_bytes=peak, steps=tuple(steps), rows=rows, peak_position=at_peak, rules=rules
    )
