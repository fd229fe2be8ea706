"""Splits by arrays: held against all splits of small chains."""

from __future__ import annotations

import pytest

from partition.plan.array_split import array_split

from .split_cases import every_split, random_array_problem, step_of_split


@pytest.mark.parametrize("block", range(10))
def test_no_split_takes_a_shorter_step(block: int) -> None:
    """2,000 random chains in all: up to 10 layers, 4 devices that differ in speed, links that differ."""
    for seed in range(block * 200, (block + 1) * 200):
        problem = random_array_problem(seed)
        split = array_split(problem)
        best = min(step_of_split(problem, segments) for segments in every_split(problem))
        assert split.step_s == pytest.approx(best, rel=1e-9)
        assert step_of_split(problem, split.segments) == pytest.approx(split.step_s, rel=1e-9)
