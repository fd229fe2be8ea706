"""Splits that honour constraints: the searches over cuts, on arrays and within memory, against every allowed split."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from partition.costs import Cluster
from partition.plan import Search
from partition.plan.array_search import ArrayProblem
from partition.plan.array_split import array_split
from partition.plan.constraints import Constraints, Pin, Run
from partition.plan.layer_sums import Cuts, Floats
from partition.plan.layout import Layout
from partition.plan.split import Segment, SplitProblem, optimal_split
from partition.plan.splitter import Splitter

from .conftest import build_config, with_memory
from .constraint_cases import allowed_splits, is_allowed, random_constraints
from .split_cases import random_array_problem, step_of_split

DEVICE = {"kind": "simulated", "memory_bytes": 2**30, "flop_per_s": {"default": 1e9}, "memory_bytes_per_s": 1e9}


def constrained(problem: ArrayProblem, constraints: Constraints, placement: tuple[int, ...]) -> ArrayProblem:
    """The problem with cuts that are not allowed taking for ever, and stages that begin late enough."""
    edges = list(constraints.edges)
    refused = np.full(problem.num_layers + 1, math.inf)
    refused[edges] = 0.0
    earliest = tuple(np.array(constraints.earliest(device), dtype=np.intp) for device in placement)
    places = tuple(range(len(placement)))

    def cuts(here: int, there: int) -> Cuts:
        free = problem.cuts(here, there)
        seconds = free.seconds + refused
        return Cuts(free.number, seconds, float(seconds.max()))

    return replace(problem, cuts=cuts, earliest=earliest, earliest_of=places, num_stages=len(placement),
                   first_alike=places, kind_of=tuple(problem.kind_of[at % problem.num_devices] for at in places)
                   )  # fmt: skip


@pytest.mark.parametrize("block", range(5))
def test_no_allowed_split_takes_a_shorter_step_on_arrays(block: int) -> None:
    """On placements of one stage a device and of several."""
    count = 0
    for seed in range(block * 200, (block + 1) * 200):
        choose, problem = random.Random(seed), random_array_problem(seed)
        placement = choose.choice([(0, 1), (1, 0), (0, 2, 1), (0, 1, 1, 0), (0, 1, 0, 1)])
        constraints = random_constraints(choose, problem.num_layers, 3)
        every = allowed_splits(constraints, placement)
        if not every:
            continue
        count += 1
        seconds = problem.cuts(0, 0).seconds

        def cuts(here: int, there: int, seconds: Floats = seconds) -> Cuts:
            slower = seconds * (1 + here + there)
            return Cuts(here + there, slower, float(slower.max()))

        of_placement = replace(problem, cuts=cuts, once_s=lambda _, last: 0.1 * (last + 1))
        limited = constrained(of_placement, constraints, placement)
        splits = [tuple(Segment(at, first, last) for at, (_, first, last) in enumerate(split)) for split in every]
        least = min(step_of_split(limited, split) for split in splits)
        assert array_split(limited).step_s == pytest.approx(least, rel=1e-9)
    assert count > 50


def random_search(choose: random.Random) -> Search:
    """Unequal widths on three unlike devices, some of them too small for much."""
    widths = [choose.randint(4, 60) for _ in range(choose.randint(4, 8))]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    devices = tuple(
        {"kind": "simulated", "memory_bytes": choose.choice([2**30, 2**15]), "memory_bytes_per_s": 1e9,
         "flop_per_s": {"default": choose.choice([1e9, 3e9])}} for _ in range(3)
    )  # fmt: skip
    return Search(build_config(model=model, cluster={"devices": devices}))


def objective(problem: SplitProblem, split: tuple[Segment, ...]) -> float:
    """The sum + (M - 1) * bottleneck of one split, infinite where a stage does not fit."""
    stages = [problem.stage_s(index, *segment[:3]) for index, segment in enumerate(split)]
    cuts = [problem.cut_s(at, at + 1, split[at].last_layer) for at in range(len(split) - 1)]
    once = problem.once_s(0, split[0].device, *split[0].layers[:2])
    return sum((*stages, *cuts, once)) + (problem.num_microbatches - 1) * max(*stages, *cuts)


@pytest.mark.parametrize("seed", range(40))
def test_the_splitter_finds_the_best_allowed_split_that_fits(seed: int) -> None:
    """Of one stage a device: with room the fastest of all, else the fastest that fits; else one that is allowed."""
    choose = random.Random(seed)
    search = random_search(choose)
    constraints = random_constraints(choose, search.network.num_layers, 3)
    every = allowed_splits(constraints, (0, 1, 2))
    if not every:
        return
    layout = Layout.of("1f1b", 3, (6, 6, 5, 5), 3, False)
    cluster: Cluster = search.cluster.arranged((0, 1, 2))
    splitter = Splitter(cluster, search.costs, 22, search.sums, constraints)
    (found,) = splitter.splits(layout)
    assert is_allowed(constraints, [segment[:3] for segment in found])
    free = Splitter(cluster, search.costs, 22, search.sums)
    fill = free._fill(layout)
    whole = free._problem(3, 4, layout.distinct_sizes[0])
    problem = replace(whole, stage_s=lambda index, device, first, last:
                      whole.stage_s(index, device, first, last) if fill(index, device, first, last) <= 1
                      else math.inf)  # fmt: skip
    splits = [tuple(Segment(*stage) for stage in split) for split in every]
    least = min(objective(problem, split) for split in splits)
    assert objective(problem, found) == pytest.approx(least, rel=1e-9)
    again = optimal_split(replace(problem, stage_s=splitter.within_constraints(problem.stage_s), first_alike=(0, 1, 2)))
    assert (math.inf if again is None else again.step_s) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("schedule", ["zbv", "interleaved_1f1b"])
@pytest.mark.parametrize("seed", range(15))
def test_several_stages_a_device_are_allowed_and_near_the_best(schedule: str, seed: int) -> None:
    """Moves and near splits honour the constraints too; with a limit, what fits is allowed as well."""
    choose = random.Random(seed)
    widths = [choose.randint(4, 60) for _ in range(7)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    planner = {"strategies": ("pipeline",), "schedules": (schedule,), "num_stages": (4,), "num_microbatches": (4,)}
    layers = len(widths) - 1
    of = random_constraints(choose, layers, 2)
    asked = {"keep_together": tuple(tuple(run) for run in of.together) or None,
             "pinned": tuple({"layers": tuple(run), "device": device} for run, device in of.pins) or None}  # fmt: skip
    search = Search(build_config(model=model, planner={**planner, **asked}))
    shape = search.pipeline_shape(1, 2, 4, schedule)
    orders = [(0, 1), (1, 0)] if of.pins else [(0, 1)]
    placement = search._shapes_layouts(shape)[0].schedule.placement
    every = [tuple(Segment(*stage) for stage in split)
             for order in orders for split in allowed_splits(of, [order[rank] for rank in placement])]  # fmt: skip
    found = search.best_of(shape)
    assert bool(found.stages) is bool(every)
    if every:
        priced = [of for split in every if (of := search.price(shape, split).predicted)]
        assert not search.broken_by(found)
        assert found.predicted is not None
        assert found.predicted.step_s <= 1.02 * min(of.step_s for of in priced)
        limit = int(1.2 * min(max(of.peak_bytes) for of in priced))
        tight = Search(with_memory(search.config, limit, limit))
        found = tight.best_of(shape)
        assert found.feasible
        assert not tight.broken_by(found)


def test_ten_thousand_layers_in_groups_on_a_hundred_devices() -> None:
    """On arrays, with a layer of the middle on the last device."""
    search = Search(build_config(
        model={"in_features": 8, "hidden_features": (8,) * 9_999, "out_features": 8},
        cluster={"devices": (DEVICE,) * 100},
        planner={"keep_together": tuple((at, at + 6) for at in range(0, 9_990, 7)),
                 "pinned": ({"layers": (5_003, 5_003), "device": 99}, {"layers": (0, 0), "device": 4})},
        training={"minibatch_size": 256},
    ))  # fmt: skip
    shape = search.pipeline_shape(1, 100, 64, "1f1b")
    found = search.best_of(shape)
    assert found.stages, found.reason
    assert not search.broken_by(found)
    assert {stage.first_layer % 7 for stage in found.stages if stage.first_layer < 9_990} == {0}
    assert Run(5_003, 5_003) in [pin.run for pin in search.constraints.pins]
    assert Pin(Run(0, 0), 4) in search.constraints.pins
