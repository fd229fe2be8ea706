"""The noise below which shrinking wins: a crossing, and the verdict that flips at it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from partition.plan import Candidate, compare
from partition.plan.noise_break_even import noise_break_even, noise_break_evens
from partition.plan.progress import TIE_OF_NOISE, progress_s

from .conftest import build_config
from .test_progress import compared, named


@pytest.fixture(scope="module")
def like() -> Candidate:
    return named(compare(build_config()), "accumulate-2")


def taking(like: Candidate, step_s: float, size: int) -> Candidate:
    assert like.predicted is not None
    return replace(like, minibatch_size=size, predicted=replace(like.predicted, step_s=step_s))


def test_both_take_as_long_where_they_are_even(like: Candidate) -> None:
    found = noise_break_even(taking(like, 3.0, 10), taking(like, 20.0, 100))
    assert found.even_at == pytest.approx((20 - 3) / (0.3 - 0.2))
    assert progress_s(3.0, 10, found.even_at) == pytest.approx(progress_s(20.0, 100, found.even_at))
    assert found.wins_below is not None
    ahead_s = progress_s(3.0, 10, found.wins_below) * (1 + TIE_OF_NOISE)
    assert ahead_s == pytest.approx(progress_s(20.0, 100, found.wins_below))


def test_a_slower_step_never_wins(like: Candidate) -> None:
    found = noise_break_even(taking(like, 3.0, 10), taking(like, 2.0, 100))
    assert (found.wins_below, found.even_at) == (0.0, 0.0)


def test_a_step_cheaper_by_the_example_always_wins(like: Candidate) -> None:
    found = noise_break_even(taking(like, 1.0, 10), taking(like, 20.0, 100))
    assert (found.wins_below, found.even_at) == (None, None)


@pytest.mark.parametrize("planner", [{}, {"strategies": ("accumulate", "shrink")}])
def test_the_verdict_flips_at_it(tmp_path: Path, planner: dict[str, object]) -> None:
    candidates = compare(build_config(planner=planner)).candidates
    first = next(noise_break_evens(candidates))
    assert first.wins_below is not None
    assert math.isfinite(first.wins_below)
    assert first.wins_below > 0
    below, above = (compared(tmp_path, first.wins_below * of, **planner).chosen for of in (0.999, 1.001))
    assert below is not None
    assert above is not None
    assert below.name == first.candidate
    assert above.name == first.rival


def test_it_is_said_where_noise_is_not_measured() -> None:
    comparison = compare(build_config())
    first = next(noise_break_evens(comparison.candidates))
    assert f"{first.candidate} beats {first.rival} below B_noise = {first.wins_below:,.0f}" in comparison.verdict
