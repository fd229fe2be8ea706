"""Random chains to split, and the best of all their splits by trying every one."""

from __future__ import annotations

import math
import random
from itertools import combinations, pairwise

import numpy as np

from partition.plan.array_search import ArrayProblem
from partition.plan.layer_sums import Cuts, Sums
from partition.plan.split import Segment


def random_array_problem(seed: int, most_layers: int = 10, most_devices: int = 4) -> ArrayProblem:
    """Layers of which pairs may add something, on devices of up to 3 speeds in runs, links by pairs of devices."""
    choose = random.Random(seed)
    num_layers, num_devices = choose.randint(1, most_layers), choose.randint(1, most_devices)
    kinds = sorted(choose.randrange(3) for _ in range(num_devices))
    of_kinds = [_sums(choose, num_layers) for _ in range(3)]
    distinct = sorted(set(kinds))
    cut = np.array([0.0] + [choose.choice([0.0, choose.random(), 3 * choose.random()]) for _ in range(num_layers)])
    factor = choose.choice([0.0, 0.1, 1.0])
    once = choose.choice([0.0, 0.5])

    def cuts(device: int, following: int) -> Cuts:
        slowness = kinds[device] + kinds[following]
        seconds = factor * cut * (1 + slowness)
        return Cuts(slowness, seconds, float(seconds.max()))

    return ArrayProblem(
        num_layers=num_layers,
        num_stages=choose.randint(1, min(num_layers, num_devices)),
        num_microbatches=choose.choice([1, 2, 3, 8, 64]),
        kinds=tuple(of_kinds[kind] for kind in distinct),
        kind_of=tuple(map(distinct.index, kinds)),
        cuts=cuts,
        once_s=lambda device, last: once * (last + 1) * (1 + kinds[device]),
        first_alike=tuple(range(num_devices)) if seed % 2 else tuple(map(kinds.index, kinds)),
    )


def _sums(choose: random.Random, num_layers: int) -> Sums:
    alone = [choose.choice([0.1, 1.0, choose.random()]) for _ in range(num_layers)]
    added = [0.0]
    for _ in range(num_layers - 1):
        added.append(added[-1] + choose.choice([0.0, 0.2 * choose.random()]))
    total = np.concatenate(([0.0], np.cumsum(alone)))
    pairs = np.array(added)
    return Sums(np.concatenate(([0.0], total[1:] + pairs)), total[:-1] + pairs)


def step_of_split(problem: ArrayProblem, segments: tuple[Segment, ...]) -> float:
    """The sum + (M - 1) * bottleneck of one split, by the definition."""
    stages = [problem.sums(device).stage_s(first, last) for device, first, last, _ in segments]
    cuts = [float(problem.cuts(before.device, after.device).seconds[after.first_layer])
            for before, after in pairwise(segments)]  # fmt: skip
    once = problem.once_s(segments[0].device, segments[0].last_layer)
    return math.fsum((*stages, *cuts, once, (problem.num_microbatches - 1) * max(*stages, *cuts, 0.0)))


def every_split(problem: ArrayProblem) -> list[tuple[Segment, ...]]:
    """All cuts on all choices of devices in their order."""
    found = []
    for cuts in combinations(range(1, problem.num_layers), problem.num_stages - 1):
        ends = (0, *cuts, problem.num_layers)
        for devices in combinations(range(problem.num_devices), problem.num_stages):
            found.append(tuple(Segment(device, ends[k], ends[k + 1] - 1) for k, device in enumerate(devices)))
    return found
