"""Optimal splits held against every split of small chains, and against an integer program on larger ones."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from partition.plan.array_search import ArrayProblem
from partition.plan.array_split import array_split
from partition.plan.split import Segment, SplitProblem, optimal_split
from partition.schedule import Kind, generate

from .split_cases import every_split, random_array_problem, step_of_split

SCHEDULES = ("gpipe", "1f1b", "zb_h1", "zb_h2")


@cache
def in_flight(schedule: str, num_ranks: int, num_microbatches: int) -> tuple[int, ...]:
    """The most microbatches that each rank holds between a forward and the end of its backward."""
    found = []
    for row in generate(schedule, num_ranks=num_ranks, num_microbatches=num_microbatches).rows:
        held = most = 0
        for action in row:
            held += {Kind.F: 1, Kind.B: -1, Kind.W: -1}.get(action.kind, 0)
            most = max(most, held)
        found.append(most)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Limited:
    """A chain whose stages also have to fit: what a layer holds throughout, and for every microbatch in flight."""

    problem: ArrayProblem
    schedule: str
    static: tuple[int, ...]
    kept: tuple[int, ...]
    limits: tuple[int, ...]

    def fits(self, index: int, device: int, first: int, last: int) -> bool:
        """Whether a stage fits a device at its position in the schedule."""
        count = in_flight(self.schedule, self.problem.num_stages, self.problem.num_microbatches)[index]
        own = slice(first, last + 1)
        return sum(self.static[own]) + count * sum(self.kept[own]) <= self.limits[device]

    def best(self) -> float:
        """The least step of all splits that fit; infinite where none does."""
        return min(
            (step_of_split(self.problem, split) for split in every_split(self.problem)
             if all(self.fits(index, *of[:3]) for index, of in enumerate(split))),
            default=math.inf,
        )  # fmt: skip

    def as_split_problem(self) -> SplitProblem:
        """The same for the search over cuts."""
        problem = self.problem

        def stage_s(index: int, device: int, first: int, last: int) -> float:
            return problem.sums(device).stage_s(first, last) if self.fits(index, device, first, last) else math.inf

        return SplitProblem(
            num_layers=problem.num_layers,
            num_stages=problem.num_stages,
            num_microbatches=problem.num_microbatches,
            stage_s=stage_s,
            cut_s=lambda here, there, layer: float(problem.cuts(here, there).seconds[layer + 1]),
            once_s=lambda index, device, _, last: problem.once_s(device, last) if index == 0 else 0.0,
            first_alike=tuple(range(problem.num_devices)),
        )


def random_limited(seed: int) -> Limited:
    """Unequal memory, speed and links; the schedules in turn."""
    choose, problem = random.Random(seed), random_array_problem(seed)
    layers, devices = range(problem.num_layers), range(problem.num_devices)
    return Limited(
        problem=problem,
        schedule=SCHEDULES[seed % len(SCHEDULES)],
        static=tuple(choose.randint(0, 30) for _ in layers),
        kept=tuple(choose.randint(0, 10) for _ in layers),
        limits=tuple(choose.choice([10_000, choose.randint(20, 400)]) for _ in devices),
    )


@pytest.mark.parametrize("block", range(10))
def test_no_split_that_fits_takes_a_shorter_step(block: int) -> None:
    """2,000 random chains in all, each with the in-flight profile of its schedule."""
    for seed in range(block * 200, (block + 1) * 200):
        limited = random_limited(seed)
        split, best = optimal_split(limited.as_split_problem()), limited.best()
        assert (math.inf if split is None else split.step_s) == pytest.approx(best, rel=1e-9)


def integer_program(problem: ArrayProblem) -> float:
    """The least step by HiGHS: a 0-1 variable for each stage, first and last layer, and the bottleneck."""
    optimize = pytest.importorskip("scipy.optimize")
    stages, layers = problem.num_stages, problem.num_layers
    runs = [(first, last) for first in range(layers) for last in range(first, layers)]
    choices = [Segment(k, first, last) for k in range(stages) for first, last in runs
               if (k == 0) == (first == 0) and (k == stages - 1) == (last == layers - 1)]  # fmt: skip
    stage_s = np.array([problem.sums(k).stage_s(first, last) for k, first, last, _ in choices])
    cut_s = np.array([problem.cuts(k, k + 1).seconds[last + 1] if k < stages - 1 else 0.0 for k, _, last, _ in choices])
    once_s = np.array([problem.once_s(0, last) if k == 0 else 0.0 for k, _, last, _ in choices])
    count = len(choices)
    # One choice for each stage; where one stage ends the next begins.
    ends = {
        (k, layer): row for row, (k, layer) in enumerate((k, at) for k in range(stages - 1) for at in range(layers))
    }
    flow, one_each = np.zeros((len(ends), count + 1)), np.zeros((stages, count + 1))
    below, cuts = np.zeros((stages, count + 1)), np.zeros((stages, count + 1))
    for column, (k, first, last, _) in enumerate(choices):
        one_each[k, column] = 1
        below[k, column], cuts[k, column] = stage_s[column], cut_s[column]
        if k < stages - 1:
            flow[ends[k, last], column] += 1
        if k > 0:
            flow[ends[k - 1, first - 1], column] -= 1
    below[:, -1] = cuts[:, -1] = -1
    limits = [optimize.LinearConstraint(one_each, 1, 1), optimize.LinearConstraint(flow, 0, 0),
              optimize.LinearConstraint(below, -np.inf, 0), optimize.LinearConstraint(cuts, -np.inf, 0)]  # fmt: skip
    found = optimize.milp(
        np.append(stage_s + cut_s + once_s, problem.num_microbatches - 1),
        constraints=limits,
        integrality=np.append(np.ones(count), 0),
        bounds=optimize.Bounds(0, np.append(np.ones(count), np.inf)),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    return float(found.fun)


def medium_problem(seed: int) -> ArrayProblem:
    """A dozen layers or two on as many unlike devices as stages."""
    for attempt in range(seed * 1000, (seed + 1) * 1000):
        problem = random_array_problem(attempt, most_layers=24, most_devices=6)
        if problem.num_stages == problem.num_devices >= 3 and problem.num_layers >= 12:
            return problem
    raise AssertionError("some attempt is of medium size")


def check_against_integer_program(seed: int) -> None:
    """To the tolerance of the integer program."""
    problem = medium_problem(seed)
    assert array_split(problem).step_s == pytest.approx(integer_program(problem), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_an_integer_program_agrees(seed: int) -> None:
    check_against_integer_program(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 50))
def test_an_integer_program_agrees_on_more(seed: int) -> None:
    check_against_integer_program(seed)
