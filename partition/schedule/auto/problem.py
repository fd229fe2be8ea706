"""Many schedules of one shape replayed side by side, to choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partition.schedule.actions import Kind
from partition.schedule.fast.coded import END, Coded, Floats, Integers
from partition.schedule.fast.estimate import estimate_lanes
from partition.schedule.replay_costs import ReplayCosts

Rows = tuple[Integers, ...]
"""numbers of each rank of one schedule, without padding"""

_MOST_ACTIONS = 200_000
"""computations replayed together"""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a schedule is sought for."""

    costs: ReplayCosts
    placement: tuple[int, ...]
    """rank of each stage"""
    limits_bytes: tuple[int, ...] = ()
    """bytes that each rank may hold; empty: no limit"""
    receives_ahead: int = 0
    """how the schedule will be lowered"""
    has_step_barrier: bool = False
    """whether all ranks start their first step together"""

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.placement)

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return max(self.placement) + 1

    @property
    def num_microbatches(self) -> int:
        """Number of microbatches."""
        return len(self.costs.size_class)

    @property
    def can_split(self) -> bool:
        """Whether the costs say what I and W take."""
        return Kind.I in self.costs.seconds and Kind.W in self.costs.seconds

    @property
    def can_merge(self) -> bool:
        """Whether the costs say what B takes."""
        return Kind.B in self.costs.seconds


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What each of several schedules comes to."""

    makespan_s: Floats
    """infinite where the schedule stands still or a rank exceeds its limit"""
    excess_bytes: Floats
    """bytes beyond the limit of the rank that exceeds it most; infinite where the schedule stands still"""


def stack(candidates: Sequence[Rows], problem: Problem) -> Coded:
    """Give each schedule ranks and stages of its own."""
    copies, per_kind = len(candidates), problem.num_stages * problem.num_microbatches
    width = max(len(row) for rows in candidates for row in rows) + 1
    matrix = np.full((copies, problem.num_ranks, width), END, dtype=np.int32)
    for copy, rows in enumerate(candidates):
        for rank, row in enumerate(rows):
            matrix[copy, rank, : len(row)] = row
    shift = matrix // per_kind * ((copies - 1) * per_kind) + np.arange(copies)[:, None, None] * per_kind
    shifted = np.where(matrix == END, END, matrix + shift).astype(np.int32)
    return Coded(
        num_stages=problem.num_stages,
        num_microbatches=problem.num_microbatches,
        placement=problem.placement,
        rows=shifted.reshape(-1, width),
    )


def price(candidates: Sequence[Rows], problem: Problem) -> Prices:
    """Replay each schedule, as many together as stay small."""
    together = max(1, _MOST_ACTIONS // (3 * problem.num_stages * problem.num_microbatches))
    parts = [_price(candidates[k : k + together], problem) for k in range(0, len(candidates), together)]
    return Prices(
        makespan_s=np.concatenate([part.makespan_s for part in parts]),
        excess_bytes=np.concatenate([part.excess_bytes for part in parts]),
    )


def _price(candidates: Sequence[Rows], problem: Problem) -> Prices:
    coded = stack(candidates, problem)
    figures, stuck = estimate_lanes(coded, problem.costs, problem.has_step_barrier, problem.receives_ahead)
    stands_still = stuck.reshape(len(candidates), -1).any(axis=1)
    excess = np.zeros(len(candidates))
    if problem.limits_bytes:
        peaks = np.asarray(figures.peak_bytes).reshape(len(candidates), -1)
        excess = (peaks - np.asarray(problem.limits_bytes)).max(axis=1).astype(np.float64)
    return Prices(
        makespan_s=np.where(stands_still | (excess > 0), np.inf, figures.makespans_s),
        excess_bytes=np.where(stands_still, np.inf, excess),
    )
