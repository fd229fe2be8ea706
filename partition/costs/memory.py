"""Bytes that a program takes and gives: what stays after it, and the most that is alive while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from partition.graph import Category, Program
from partition.graph.program import Give, Take


@dataclass(frozen=True, kw_only=True)
class MemoryEffect:
    """The bytes of one action, relative to those alive before it."""

    net_bytes: int
    """Change that stays after the action."""
    peak_bytes: int
    """Highest excess over the bytes before the action, never below 0."""
    net_by_category: Mapping[Category, int]
    peak_by_category: Mapping[Category, int]
    """What the excess consists of at the (first) instant of its peak."""


def memory_effect(program: Program, rows: int, itemsize: int) -> MemoryEffect:
    """The effect of running a program on a microbatch of `rows` examples of numbers of `itemsize` bytes."""
    current: Counter[Category] = Counter()
    total = peak = 0
    at_peak: dict[Category, int] = {}
    for instruction in program:
        match instruction:
            case Take(variable):
                change = variable.num_bytes(rows, itemsize)
            case Give(variable):
                change = -variable.num_bytes(rows, itemsize)
            case _:
                continue
        current[variable.category] += change
        total += change
        if total > peak:
            peak, at_peak = total, dict(current)
    return MemoryEffect(net_bytes=total, peak_bytes=peak, net_by_category=dict(current), peak_by_category=at_peak)
