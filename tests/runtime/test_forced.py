"""Random experiments forced to run at memory limits near what is predicted: what is called feasible runs, nothing else.

An experiment is drawn, one of its candidates is aimed at, and the devices are given about as much memory as that one is
predicted to need: exactly, a byte more or less, a hundredth more or less, or anything. The experiment is then planned
anew on these devices and its candidates are run whatever was said of them, as `--force` does.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.errors import DeviceMemoryError
from partition.plan import Candidate, Search, Segment
from partition.plan.candidate import rank_loads
from partition.plan.shape import Shape
from partition.runtime import Fleet
from tests.runtime.random_experiments import COARSE, random_experiment, with_rules
from tests.runtime.test_random_experiments import exercise, with_slow

FAST, ALL = range(8), range(330)
SPLITS_FAST, ALL_SPLITS = range(1000, 1003), range(1000, 1100)
MOST_RUN = 5
"""Candidates of one experiment that are run: the one aimed at, and some of the others."""
MOST_SPLITS_RUN = 12
KINDS = ("exact", "byte below", "byte above", "hundredth below", "hundredth above", "any")


def drawn(seed: int) -> ExperimentConfig:
    """A third of them of blocks, a quarter in bfloat16, most with recomputation and microbatches of several sizes."""
    choose = random.Random(f"forced {seed}")
    number_format = "bfloat16" if seed % 4 == 3 else None
    config, _ = random_experiment(seed, has_blocks=seed % 3 == 1, number_format=number_format)
    planner = config.planner
    assert planner.strategies is not None, "one is drawn"
    assert planner.num_microbatches is not None, "one is drawn"
    most = config.training.minibatch_size // 2
    wider = {
        "strategies": tuple(dict.fromkeys((*planner.strategies, *(["recompute"] if choose.random() < 0.7 else [])))),
        "num_microbatches": tuple(sorted({*planner.num_microbatches, choose.randint(2, min(most, 9))})),
    }
    return config.model_copy(update={"planner": planner.model_copy(update=wider)})


def limit_near(choose: random.Random, peak_bytes: int, kind: str, block_bytes: int) -> int:
    match kind:
        case "byte below":
            return peak_bytes - block_bytes
        case "byte above":
            return peak_bytes + block_bytes
        case "hundredth below":
            return int(peak_bytes * 0.99)
        case "hundredth above":
            return int(peak_bytes * 1.01)
        case "any":
            return int(peak_bytes * choose.uniform(0.6, 1.2))
    return peak_bytes


def limits_near(choose: random.Random, config: ExperimentConfig, aim: Candidate, block_bytes: int) -> list[int]:
    """The memory of every device: alike, or each near what itself is predicted to need."""
    assert aim.predicted is not None, "only what is priced is aimed at"
    peaks, kind = aim.predicted.peak_bytes, choose.choice(KINDS)
    # Replicas are of like devices: those of a position have the same memory.
    of_position = [max(peaks[position :: aim.ranks_per_replica]) for position in range(aim.ranks_per_replica)]
    if choose.random() < 0.5:
        of_position = [max(peaks)] * aim.ranks_per_replica
    limits = [limit_near(choose, peak, kind, block_bytes) for peak in of_position]
    if choose.random() < 0.5 and len(limits) > 1:
        # The others have room.
        tight = choose.randrange(len(limits))
        limits = [limit if at == tight else 2 * limit for at, limit in enumerate(limits)]
    return [max(1, limits[device % len(limits)]) for device in range(len(config.cluster.devices))]


def search_of(config: ExperimentConfig, *, is_coarse: bool) -> Search:
    return with_rules(Search(config), COARSE) if is_coarse else Search(config)


def limited(seed: int) -> tuple[Search, str]:
    """The experiment on devices near the limit of one of its candidates, and the name of that one."""
    choose, config = random.Random(f"limits {seed}"), drawn(seed)
    is_coarse = seed % 10 == 9
    aims = [one for one in search_of(config, is_coarse=is_coarse).candidates() if one.predicted]
    aim = choose.choice(aims)
    block_bytes = COARSE.granularity_bytes if is_coarse else 1
    limits = limits_near(choose, config, aim, block_bytes)
    devices = tuple(
        device.model_copy(update={"memory_bytes": limit})
        for device, limit in zip(config.cluster.devices, limits, strict=True)
    )
    cluster = config.cluster.model_copy(update={"devices": devices})
    return search_of(config.model_copy(update={"cluster": cluster}), is_coarse=is_coarse), aim.name


def refused_by(search: Search, candidate: Candidate, dataset: Dataset) -> str:
    """The device that refuses a candidate when it is run whatever was predicted; nothing where it runs."""
    try:
        exercise(Fleet(search, candidate), candidate, dataset)
    except DeviceMemoryError as error:
        return error.device
    return ""


def check(search: Search, candidate: Candidate, dataset: Dataset) -> None:
    """What is feasible runs, what is not is refused, by a device of which that was said."""
    overfull = {load.device for load in rank_loads(candidate.stages) if load.peak_bytes > load.limit_bytes}
    assert candidate.feasible is not bool(overfull)
    device = refused_by(search, candidate, dataset)
    assert (device in overfull) if overfull else not device, f"{candidate.name}: {candidate.reason}, refused: {device}"


def forced(seed: int) -> list[Candidate]:
    """Run the candidate aimed at and a few others of a random experiment; those that were run."""
    search, aim = limited(seed)
    candidates = [one for one in search.candidates() if one.stages]
    random.Random(seed).shuffle(candidates)
    candidates.sort(key=lambda one: one.name not in (aim, f"{aim}-recompute"))
    dataset = load(search.config)
    for candidate in candidates[:MOST_RUN]:
        check(search, candidate, dataset)
    return candidates[:MOST_RUN]


@pytest.mark.parametrize("seed", with_slow(FAST, ALL))
def test_what_is_called_feasible_runs_and_nothing_else(seed: int) -> None:
    assert forced(seed)


@pytest.mark.slow
def test_of_all_kinds_some_are_feasible_and_some_are_not() -> None:
    met = Counter[tuple[Any, ...]]()
    for seed in ALL:
        search, aim = limited(seed)
        kind = search.config.precision.compute
        for one in search.candidates():
            if one.stages:
                met[one.feasible, "aim" if one.name == aim else "other"] += 1
                met[one.feasible, one.strategy] += 1
                met[one.feasible, one.schedule] += 1
                met[one.feasible, kind] += 1
                met[one.feasible, "recompute" if one.recompute else "kept"] += 1
    kinds = {kind for _, kind in met}
    assert all(met[is_feasible, kind] >= 3 for is_feasible in (True, False) for kind in kinds), met


# Splits other than the planner's


def splits_of(search: Search, shape: Shape) -> Iterator[list[Segment]]:
    """Every split of a shape: contiguous layers on devices in their order, or as the schedule places them."""
    num_layers, count = search.costs.num_layers, shape.num_stages
    placement = search.layouts_on(shape, [])[0].schedule.placement
    is_placed = count != shape.num_ranks
    devices = [placement] if is_placed else combinations(range(len(search.cluster.devices)), count)
    for of_stage in devices if shape.num_replicas == 1 or is_placed else [placement]:
        for cuts in combinations(range(1, num_layers), count - 1):
            spans = pairwise((0, *cuts, num_layers))
            yield [Segment(device, first, end - 1) for device, (first, end) in zip(of_stage, spans, strict=True)]


def refused_everywhere(search: Search, candidate: Candidate, dataset: Dataset, splits: Sequence[list[Segment]]) -> None:
    for segments in splits:
        other = search.price(Shape.of(candidate), segments)
        assert refused_by(search, other, dataset), f"{candidate.name} runs on {segments}"


@pytest.mark.parametrize("seed", with_slow(SPLITS_FAST, ALL_SPLITS))
def test_what_is_called_infeasible_is_refused_on_every_split(seed: int) -> None:
    """A way over several devices is called infeasible only where no split of it would run."""
    search, _ = limited(seed)
    dataset, choose = load(search.config), random.Random(seed)
    for candidate in search.candidates():
        if candidate.stages and not candidate.feasible and candidate.num_stages > 1:
            splits = list(splits_of(search, Shape.of(candidate)))
            refused_everywhere(search, candidate, dataset, choose.sample(splits, min(len(splits), MOST_SPLITS_RUN)))
