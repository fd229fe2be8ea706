"""The optimal split against brute force."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from partition.plan import SplitProblem, optimal_split


def random_problem(seed: int) -> SplitProblem:
    """Up to 7 layers on up to 4 devices, unequal or alike, some stages that do not fit."""
    choose = random.Random(seed)
    layers, devices = choose.randint(1, 7), choose.randint(1, 4)
    stages = choose.randint(1, min(layers, devices))
    is_uniform = choose.random() < 0.4
    layer_s = [choose.choice([1.0, 2.0, choose.random() * 5]) for _ in range(layers)]
    speed = [1.0 if is_uniform else choose.uniform(0.5, 3) for _ in range(devices)]
    link = choose.choice([0.0, 0.5, 3.0])
    cut = [choose.random() * link for _ in range(layers)]
    refused = {
        (stage, -1 if is_uniform else device, first, last)
        for stage in range(stages)
        for device in range(1 if is_uniform else devices)
        for first in range(layers)
        for last in range(first, layers)
        if choose.random() < 0.2 * (last > first)
    }

    def stage_s(stage: int, device: int, first: int, last: int) -> float:
        if (stage, -1 if is_uniform else device, first, last) in refused:
            return math.inf
        return sum(layer_s[first : last + 1]) / speed[device]

    def cut_s(device: int, following: int, layer: int) -> float:
        return cut[layer] * (1 if is_uniform else 1 + 0.3 * (following - device))

    def once_s(stage: int, device: int, first: int, last: int) -> float:
        return 0.7 * (last + 1 - first) / speed[device] * (stage == 0)

    return SplitProblem(
        num_layers=layers,
        num_stages=stages,
        num_devices=devices,
        num_microbatches=choose.choice([1, 2, 5, 40]),
        stage_s=stage_s,
        cut_s=cut_s,
        once_s=once_s,
        is_uniform=is_uniform,
    )


def brute_force(problem: SplitProblem) -> float:
    """The least step over every choice of cuts and devices."""
    best = math.inf
    for cuts in combinations(range(1, problem.num_layers), problem.num_stages - 1):
        ends = (0, *cuts, problem.num_layers)
        for devices in combinations(range(problem.num_devices), problem.num_stages):
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
