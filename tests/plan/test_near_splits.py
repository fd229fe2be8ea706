"""Splits that may be as quick as the quickest found."""

from __future__ import annotations

import numpy as np
import pytest

from partition.plan import Segment
from partition.plan.near_splits import EVENNESS, MOST_NEAR, near_splits, steps_of

V = (0, 1, 1, 0)
"""Four stages on two ranks."""
LAYER_S = np.array([5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 1.0])
ENDS, STARTS = np.concatenate(([0.0], np.cumsum(LAYER_S))), np.concatenate(([0.0], np.cumsum(LAYER_S)))[:-1]
NO_HOPS = [np.zeros(9)] * 3


def split(*cuts: int) -> tuple[Segment, ...]:
    ends = (0, *cuts, 8)
    return tuple(Segment(rank, ends[index], ends[index + 1] - 1) for index, rank in enumerate(V))


def test_the_order_is_of_path_and_busiest_rank() -> None:
    hops = [np.full(9, 0.5), np.zeros(9), np.full(9, 0.25)]
    steps_s = steps_of(V, [(ENDS, STARTS)] * 4, hops, num_microbatches=11)
    # Stages of 5, 2, 2 and 7: ranks of 12 and 4, the longest stage of 7 twice a rank.
    assert steps_s(np.array([[1, 3, 5], [2, 4, 6]])).tolist() == pytest.approx(
        [16 + 0.75 + 10 * (12 + EVENNESS * 2 * 7), 16 + 0.75 + 10 * (12 + EVENNESS * 2 * 6)]
    )


@pytest.mark.parametrize("num_layers", [8, 40])
def test_they_fit_are_distinct_and_begin_with_those_found(num_layers: int) -> None:
    """Of few splits all are looked at, of many those that moving cuts leads to."""
    sums = np.arange(num_layers + 1.0)
    steps_s = steps_of(V, [(sums, sums[:-1])] * 4, [np.zeros(num_layers + 1)] * 3, num_microbatches=4)
    start = tuple(Segment(rank, first, last) for rank, first, last in zip(
        V, (0, 2, 4, 6), (1, 3, 5, num_layers - 1), strict=True))  # fmt: skip

    def fits(of: tuple[Segment, ...]) -> bool:
        return of[0].last_layer == 1

    found = near_splits([start], range(num_layers + 1), steps_s, fits, 4)
    assert found[0] == start
    assert len(set(found)) == len(found) == 1 + MOST_NEAR
    assert all(fits(of) and of[-1].last_layer == num_layers - 1 for of in found)
    assert all(of[k].last_layer + 1 == of[k + 1].first_layer for of in found for k in range(3))


def test_the_best_by_the_order_is_among_them() -> None:
    steps_s = steps_of(V, [(ENDS, STARTS)] * 4, NO_HOPS, num_microbatches=4)
    every = [(a, b, c) for a in range(1, 6) for b in range(a + 1, 7) for c in range(b + 1, 8)]
    best = every[int(np.argmin(steps_s(np.array(every))))]
    assert split(*best) in near_splits([split(1, 2, 3)], range(9), steps_s, lambda _: True, 4)


def test_long_schedules_are_not_replayed_for_more() -> None:
    steps_s = steps_of(V, [(ENDS, STARTS)] * 4, NO_HOPS, num_microbatches=600)
    assert near_splits([split(1, 2, 3)], range(9), steps_s, lambda _: True, 600) == [split(1, 2, 3)]
