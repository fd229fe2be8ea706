"""The choice among candidates whose figures are given, and the candidates that are tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from partition.plan import Candidate, compare
from partition.plan.choice import choose

from .conftest import build_config, with_memory


@pytest.fixture(scope="module")
def like() -> Candidate:
    found = compare(build_config()).candidate("accumulate-2")
    assert found is not None
    return found


def candidate(
    like: Candidate, name: str, num_devices: int, step_s: float, peak: int = 100, *, size: int = 22
) -> Candidate:
    assert like.predicted is not None
    predicted = replace(
        like.predicted,
        step_s=step_s,
        device_seconds_per_sample=step_s * num_devices / size,
        peak_bytes=(peak,) * num_devices,
    )
    return replace(like, name=name, num_devices=num_devices, predicted=predicted, minibatch_size=size)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("time_to_target", "four"), ("step_time", "four"), ("device_seconds", "two"), ("fewest_devices", "one-fast")],
)
def test_every_objective_has_its_own_winner(like: Candidate, objective: str, expected: str) -> None:
    candidates = [
        candidate(like, "four", 4, 3.0),
        candidate(like, "two", 2, 4.0),
        candidate(like, "one-fast", 1, 9.0),
        candidate(like, "one-slow", 1, 10.0),
    ]
    chosen = choose(candidates, objective)
    assert chosen is not None
    assert chosen.name == expected


@pytest.mark.parametrize("turn", [1, -1])
def test_ties_go_to_fewer_devices_then_less_memory_then_the_name(like: Candidate, turn: int) -> None:
    """Whatever the order; a millionth is no difference."""
    tied = [
        candidate(like, "two", 2, 1.0, peak=10),
        candidate(like, "large", 1, 1.0, peak=30),
        candidate(like, "b", 1, 1.0 + 5e-7, peak=20),
        candidate(like, "a", 1, 1.0, peak=20),
    ]
    chosen = choose(tied[::turn], "step_time")
    assert chosen is not None
    assert chosen.name == "a"


def test_a_real_difference_is_no_tie(like: Candidate) -> None:
    chosen = choose([candidate(like, "one", 1, 1.00001), candidate(like, "two", 2, 1.0)], "step_time")
    assert chosen is not None
    assert chosen.name == "two"


@pytest.mark.parametrize("objective", ["time_to_target", "step_time", "device_seconds", "fewest_devices"])
def test_an_inexact_candidate_never_beats_an_exact_one(like: Candidate, objective: str) -> None:
    shrunk = replace(candidate(like, "shrink", 1, 0.001, size=11), exact_gradient=False)
    exact = candidate(like, "exact", 4, 100.0)
    assert choose([shrunk, exact], objective) is exact
    assert choose([shrunk, replace(exact, feasible=False)], objective) is shrunk


def test_among_inexact_ones_the_largest_minibatch_is_taken(like: Candidate) -> None:
    shrunk = [replace(candidate(like, f"{size}", 1, 1.0, size=size), exact_gradient=False) for size in (5, 20, 11)]
    assert choose(shrunk, "step_time") is shrunk[1]


def test_nothing_feasible_is_no_choice(like: Candidate) -> None:
    assert choose([replace(like, feasible=False)], "step_time") is None
    assert choose([], "fewest_devices") is None


def test_devices_that_are_alike_are_tried_once() -> None:
    config = with_memory(build_config(planner={"strategies": ("whole",)}), 2**20, 2**20, 2**21)
    assert {one.name for one in compare(config).candidates} == {"whole@simulated:0", "whole@simulated:2"}


def test_a_minibatch_smaller_than_the_stages_is_still_laid_out() -> None:
    """Three examples make at most two microbatches that are a power of two; four stages take those."""
    config = build_config(training={"minibatch_size": 3}, planner={"num_stages": (4,)})
    pipelines = [one for one in compare(config).candidates if one.strategy == "pipeline"]
    assert {one.num_microbatches for one in pipelines} == {2}
    assert all(one.stages for one in pipelines)


def test_a_smaller_minibatch_is_not_forced_where_the_whole_fits() -> None:
    """Only halves are tried; the largest that fits would be one example less than asked for."""
    shrunk = {one.minibatch_size for one in compare(build_config()).candidates if one.strategy == "shrink"}
    assert shrunk == {11, 5, 2}


def test_the_split_that_comes_closest_leaves_the_fullest_device_least_full() -> None:
    """No other cut of the refused pipeline would need smaller devices."""
    from itertools import combinations

    from partition.plan import Search, Segment
    from partition.plan.shape import Shape

    config = with_memory(
        build_config(
            planner={
                "strategies": ("pipeline",),
                "schedules": ("gpipe", "1f1b"),
                "num_stages": (3,),
                "num_microbatches": (4,),
            }
        ),
        *(1000,) * 4,
    )
    search = Search(config)
    for refused in search.candidates():
        shape = Shape(name="x", strategy="pipeline", minibatch_size=22, num_microbatches=4, num_ranks=3,
                      num_stages=3, schedule=refused.schedule)  # fmt: skip
        peaks = []
        for cuts in combinations(range(1, 4), 2):
            ends = (0, *cuts, 4)
            other = search.price(shape, [Segment(k, ends[k], ends[k + 1] - 1) for k in range(3)])
            assert other.predicted is not None
            peaks.append(max(other.predicted.peak_bytes))
        assert refused.predicted is not None
        assert max(refused.predicted.peak_bytes) == min(peaks)
