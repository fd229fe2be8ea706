"""Bytes of one rank over its row: a ledger that follows the order of actions, not the clock.

Buffers are taken and given back at fixed points of the row, so the memory of a rank does not depend on how fast
anything runs:

    F0  SEND_F0  F1  SEND_F1  ...  STEP
    ^   ^            ^             ^
    |   |            |             the first step waits for all sends: their buffers are given back
    |   |            waits for SEND_F0, gives its buffer back, and keeps that of F1
    |   the buffer that F0 made (counted in F0) is on its way
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from partition.schedule.actions import OF_STAGE, SENDS, Action, Kind
from partition.schedule.replay_costs import ReplayCosts


class Held(NamedTuple):
    """Bytes at one action: the most during it, and those left after it."""

    highest_bytes: int
    after_bytes: int


class MemoryPeak(NamedTuple):
    """The most bytes that a rank holds, and the first position of its row at which it does (-1: before the row)."""

    peak_bytes: int
    position: int


def memory_over_row(row: Sequence[Action], costs: ReplayCosts, static_bytes: int) -> Iterator[Held]:
    """Bytes at every action of one rank's lowered row, starting from what the rank holds throughout."""
    current = static_bytes
    pending: dict[tuple[int, Kind], int] = {}
    for stage, kind, microbatch in row:
        size = costs.size_class[microbatch] if kind not in OF_STAGE else 0
        if kind in SENDS:
            current -= pending.pop((stage, kind), 0)
            pending[stage, kind] = costs.send_hold_bytes[kind][stage][size] if kind in costs.send_hold_bytes else 0
            yield Held(current, current)
            continue
        if kind is Kind.STEP:
            current -= sum(pending.values())
            pending.clear()
        highest = current + (costs.peak_bytes[kind][stage][size] if kind in costs.peak_bytes else 0)
        current += costs.net_bytes[kind][stage][size] if kind in costs.net_bytes else 0
        yield Held(max(highest, current), current)


def find_memory_peak(row: Sequence[Action], costs: ReplayCosts, static_bytes: int) -> MemoryPeak:
    """The most bytes held over a lowered row, and where."""
    peak, where = static_bytes, -1
    for position, held in enumerate(memory_over_row(row, costs, static_bytes)):
        if held.highest_bytes > peak:
            peak, where = held.highest_bytes, position
    return MemoryPeak(peak, where)


def memory_peak(row: Sequence[Action], costs: ReplayCosts, static_bytes: int) -> int:
    """The most bytes held over a lowered row."""
    return find_memory_peak(row, costs, static_bytes).peak_bytes
