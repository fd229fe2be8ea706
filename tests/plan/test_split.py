"""The optimal split against brute force."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import accumulate, combinations, repeat
from typing import Any, Literal

import pytest

from partition.plan import SplitProblem, optimal_split
from partition.plan.split import _Search


def random_problem(seed: int) -> SplitProblem:
    """Up to 7 layers on up to 5 devices of up to 3 kinds, neighbours often alike; some stages do not fit."""
    choose = random.Random(seed)
    layers, devices = choose.randint(1, 7), choose.randint(1, 5)
    stages = choose.randint(1, min(layers, devices))
    kinds = sorted(choose.randrange(choose.randint(1, 3)) for _ in range(devices))
    layer_s = [choose.choice([1.0, 2.0, choose.random() * 5]) for _ in range(layers)]
    speed = [choose.uniform(0.5, 3) for _ in range(3)]
    link = choose.choice([0.0, 0.5, 3.0])
    cut = [choose.random() * link for _ in range(layers)]
    refused = {
        (stage, kind, first, last)
        for stage in range(stages)
        for kind in range(3)
        for first in range(layers)
        for last in range(first, layers)
        if choose.random() < 0.2 * (last > first)
    }

    def stage_s(stage: int, device: int, first: int, last: int) -> float:
        if (stage, kinds[device], first, last) in refused:
            return math.inf
        return sum(layer_s[first : last + 1]) / speed[kinds[device]]

    def cut_s(device: int, following: int, layer: int) -> float:
        return cut[layer] * (1 + 0.3 * (kinds[following] - kinds[device]))

    def once_s(stage: int, device: int, first: int, last: int) -> float:
        return 0.7 * (last + 1 - first) / speed[kinds[device]] * (stage == 0)

    return SplitProblem(
        num_layers=layers,
        num_stages=stages,
        num_microbatches=choose.choice([1, 2, 5, 40]),
        stage_s=stage_s,
        cut_s=cut_s,
        once_s=once_s,
        first_alike=tuple(map(kinds.index, kinds)),
    )


def brute_force(problem: SplitProblem) -> float:
    """The least step over every choice of cuts and devices."""
    best = math.inf
    for cuts in combinations(range(1, problem.num_layers), problem.num_stages - 1):
        ends = (0, *cuts, problem.num_layers)
        for devices in combinations(range(len(problem.first_alike)), problem.num_stages):
            stages = [
                problem.stage_s(index, device, ends[index], ends[index + 1] - 1) for index, device in enumerate(devices)
            ]
            crossings = [
                problem.cut_s(devices[index], devices[index + 1], ends[index + 1] - 1)
                for index in range(problem.num_stages - 1)
            ]
            bottleneck = max(*stages, *crossings, 0.0)
            once = problem.once_s(0, devices[0], 0, ends[1] - 1)
            total = sum(stages) + sum(crossings) + once
            best = min(best, total + (problem.num_microbatches - 1) * bottleneck)
    return best


@pytest.mark.parametrize("block", range(20))
def test_equals_brute_force(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        problem = random_problem(seed)
        split, expected = optimal_split(problem), brute_force(problem)
        if split is None:
            assert expected == math.inf, seed
        else:
            assert split.step_s == pytest.approx(expected, rel=1e-12), seed


def equal_layers(num_layers: int, num_microbatches: int, calls: Counter[tuple[int, ...]]) -> SplitProblem:
    """Layers of 0.1 s, summed one after another: equally long stages differ in their last bits."""
    sums = [0.0, *accumulate(repeat(0.1, num_layers))]

    def stage_s(stage: int, device: int, first: int, last: int) -> float:
        calls[stage, device, first, last] += 1
        return sums[last + 1] - sums[first]

    def once_s(stage: int, device: int, first: int, last: int) -> float:
        return 0.3 * (last + 1 - first) * (stage == device == 0)

    return SplitProblem(
        num_layers=num_layers,
        num_stages=4,
        num_microbatches=num_microbatches,
        stage_s=stage_s,
        cut_s=lambda *_: 0.01,
        once_s=once_s,
        first_alike=(0,) * 4,
    )


@pytest.mark.parametrize("num_microbatches", [1, 2, 3, 8, 64])
def test_equal_layers_whose_sums_are_rounded_are_split_as_brute_force_splits_them(num_microbatches: int) -> None:
    problem = equal_layers(15, num_microbatches, Counter())
    split = optimal_split(problem)
    assert split is not None
    assert split.step_s == pytest.approx(brute_force(problem), rel=1e-12)


def test_every_stage_is_priced_once_and_rounding_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred equal layers took minutes: every last bit of their sums was another bound to try."""
    searches = []
    best = _Search.best

    def count(search: _Search, criterion: Literal[0, 1]) -> Any:
        searches.append(search.bound)
        return best(search, criterion)

    monkeypatch.setattr(_Search, "best", count)
    for num_microbatches in (2, 8, 64):
        calls: Counter[tuple[int, ...]] = Counter()
        searches.clear()
        optimal_split(equal_layers(100, num_microbatches, calls))
        assert max(calls.values()) == 1
        assert len(searches) <= 20


def test_stages_cover_the_chain_in_order() -> None:
    for seed in range(200):
        split = optimal_split(random_problem(seed))
        if split is not None:
            ends = [segment.last_layer + 1 for segment in split.segments]
            assert [segment.first_layer for segment in split.segments] == [0, *ends[:-1]]
            devices = [segment.device for segment in split.segments]
            assert devices == sorted(set(devices))


def test_problems_hold_both_kinds() -> None:
    """Brute force was met by feasible and infeasible chains."""
    found = {optimal_split(random_problem(seed)) is None for seed in range(1000)}
    assert found == {True, False}
