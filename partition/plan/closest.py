"""The split that comes closest to fitting, where none fits: that of the least largest share of memory."""

from __future__ import annotations

from dataclasses import replace

from partition.plan.split import Segment, SplitProblem, optimal_split

ABOVE_CLOSEST = 1 + 1e-5
"""Times the largest share of any split: of those whose share is above, none sums to so little that it is taken."""


def closest_split(problem: SplitProblem) -> tuple[Segment, ...]:
    """The split of the least largest `stage_s`, here shares of memory; the least sum of them among equals."""
    # So large a number makes the largest share decide.
    split = optimal_split(replace(problem, cut_s=no_seconds, once_s=no_seconds, num_microbatches=10**9))
    assert split is not None, "a chain with enough layers always has a split"
    return split.segments


def no_seconds(*_: int) -> float:
    """Of cuts and steps, where memory alone counts."""
    return 0.0
