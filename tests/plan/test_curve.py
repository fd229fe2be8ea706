"""Memory against minibatch and microbatch: a point is what the plan of that size says, and the curve rises."""

from __future__ import annotations

from itertools import pairwise

import pytest

from partition.plan import Search
from partition.plan.curve import memory_curve
from partition.plan.shape import Shape, segments_of

from .conftest import build_config, with_memory

SEARCH = Search(build_config(planner={"num_microbatches": (4,)}))


@pytest.mark.parametrize(
    "name", ["whole", "accumulate-4", "pipeline-3x4-1f1b", "data_parallel-2x4", "hybrid-2x2x4-zbv"]
)
def test_points_are_what_the_plan_of_that_size_says(name: str) -> None:
    candidate = next(one for one in SEARCH.candidates() if one.name == name)
    curve = memory_curve(SEARCH, candidate)
    assert candidate.predicted is not None
    for points in (curve.by_minibatch, curve.by_microbatch):
        own = [
            point
            for point in points
            if (point.minibatch_size, point.num_microbatches) == (22, candidate.num_microbatches)
        ]
        assert [point.peak_bytes for point in own] == [candidate.predicted.peak_bytes]
    other = curve.by_microbatch[0]
    shape = Shape.of(candidate)
    changed = Shape(**{**vars(shape), "num_microbatches": other.num_microbatches})
    priced = SEARCH.price(changed, segments_of(candidate.stages)).predicted
    assert priced is not None
    assert priced.peak_bytes == other.peak_bytes


def test_the_curve_against_the_minibatch_rises_and_ends_at_twice_the_size() -> None:
    whole = next(one for one in SEARCH.candidates() if one.name == "whole")
    points = memory_curve(SEARCH, whole).by_minibatch
    assert (points[0].minibatch_size, points[-1].minibatch_size) == (3, 44)
    assert all(before.peak_bytes < after.peak_bytes for before, after in pairwise(points))


def test_points_above_the_limit_do_not_fit() -> None:
    peak = SEARCH.whole().stages[0].memory.peak_bytes
    search = Search(with_memory(SEARCH.config, peak))
    points = memory_curve(search, search.whole()).by_minibatch
    assert {point.fits for point in points if point.minibatch_size <= 22} == {True}
    assert {point.fits for point in points if point.minibatch_size > 22} == {False}


def test_a_sharded_candidate_has_a_curve_of_estimates() -> None:
    sharded = next(one for one in SEARCH.candidates() if one.sharding)
    curve = memory_curve(SEARCH, sharded)
    assert curve.by_microbatch == ()
    assert sharded.predicted is not None
    own = next(point for point in curve.by_minibatch if point.minibatch_size == 22)
    assert own.peak_bytes == sharded.predicted.peak_bytes
