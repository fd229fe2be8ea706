"""The optimal split of tables against brute force."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from itertools import combinations, permutations

import pytest

from partition.costs import Chain, LayerCost
from partition.errors import NothingFitsError, PartitionError
from partition.plan.chain_problem import ChainProblem, Place, alike_problem
from partition.plan.chain_split import ChainSplit, Objective, split_chain
from partition.plan.constraints import Constraints, Pin, Run
from tests.plan.chains import brute_force, random_chain, random_problem, stage_bytes, value
from tests.plan.constraint_cases import allowed_splits, is_allowed, random_constraints


def split_or_none(seed: int, objective: Objective) -> ChainSplit | None:
    try:
        return split_chain(random_problem(seed), objective)
    except NothingFitsError:
        return None


@pytest.mark.parametrize("objective", ["step", "bottleneck"])
@pytest.mark.parametrize("block", range(4))
def test_equals_brute_force(block: int, objective: Objective) -> None:
    found = set()
    for seed in range(block * 100, block * 100 + 100):
        split, expected = split_or_none(seed, objective), brute_force(random_problem(seed), objective)
        found.add(split is None)
        least = math.inf if split is None else split.lower_bound_s
        assert least == pytest.approx(expected, rel=1e-11), seed
    assert found == {True, False}


def test_the_figures_are_those_of_the_stages_found() -> None:
    for seed in range(100):
        split, problem = split_or_none(seed, "step"), random_problem(seed)
        if split is None:
            continue
        devices = tuple(int(stage.device) for stage in split.stages)
        assert devices == tuple(sorted(set(devices)))
        assert len(split.stages) == problem.num_stages
        assert split.step_s == pytest.approx(value(problem, split.boundaries, devices, "step"))
        assert split.bottleneck_s == pytest.approx(value(problem, split.boundaries, devices, "bottleneck"))
        for index, stage in enumerate(split.stages):
            assert stage.num_bytes == stage_bytes(problem, index, stage.first_layer, stage.last_layer)


def test_of_equal_steps_the_balanced_one_is_taken() -> None:
    """With one microbatch and free messages every split takes equally long."""
    chain = Chain(
        source="t",
        layers=tuple(
            LayerCost(name="x", forward_s=0.1, backward_s=0.2, activation_bytes=8, parameter_bytes=0) for _ in range(12)
        ),
    )
    assert split_chain(alike_problem(chain, 4, 1), "step").boundaries == (3, 6, 9)


def test_nothing_fits_in_numbers() -> None:
    """3 layers of 2 x 100 bytes and a message of 10 on both sides of the cut."""
    layers = tuple(
        LayerCost(
            name="x", forward_s=1.0, backward_s=1.0, activation_bytes=10, parameter_bytes=100, saved_bytes=0
        )
        for _ in range(3)
    )  # fmt: skip
    with pytest.raises(NothingFitsError) as caught:
        split_chain(alike_problem(Chain(source="t", layers=layers), 2, 4, limit_bytes=419), "step")
    assert "into 2 stages fits" in str(caught.value)
    assert "needs 420 B (420 bytes), device" in str(caught.value)
    assert "has 419 B (419 bytes)" in str(caught.value)
    assert caught.value.exit_code == 3
    assert split_chain(alike_problem(Chain(source="t", layers=layers), 2, 4, limit_bytes=420), "step").boundaries


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["step", "bottleneck"])
def test_a_thousand_layers_and_64_stages_take_seconds(objective: Objective) -> None:
    chain = random_chain(random.Random(0), 1000)
    limit_bytes = sum(2 * layer.parameter_bytes + 64 * (layer.saved_bytes or 0) for layer in chain.layers) // 64
    start = time.perf_counter()
    split = split_chain(alike_problem(chain, 64, 64, bytes_per_s=500.0, limit_bytes=limit_bytes), objective)
    assert time.perf_counter() - start < 10
    assert len(split.stages) == 64


@pytest.mark.parametrize("objective", ["step", "bottleneck"])
@pytest.mark.parametrize("block", range(3))
def test_under_constraints_equals_brute_force(block: int, objective: Objective) -> None:
    """Over every allowed choice of cuts and, with pins, of devices in any order."""
    outcomes = set()
    for seed in range(block * 60, block * 60 + 60):
        choose, problem = random.Random(seed), random_problem(seed)
        layers, devices = len(problem.chain.layers), len(problem.places)
        constraints = random_constraints(choose, layers, devices)
        kinds = tuple(range(devices)) if constraints.pins else ()
        problem = replace(problem, constraints=constraints, kinds=kinds)
        orders = permutations if constraints.pins else combinations
        values = [
            value(problem, tuple(first for _, first, _ in split[1:]), placement, objective)
            for placement in orders(range(devices), problem.num_stages)
            for split in allowed_splits(constraints, placement)
        ]
        try:
            found = split_chain(problem, objective)
        except NothingFitsError:
            assert min(values) == math.inf
            outcomes.add("nothing fits")
            continue
        except PartitionError:
            assert values == []
            outcomes.add("no split")
            continue
        outcomes.add("split")
        assert found.lower_bound_s == pytest.approx(min(values), rel=1e-11)
        stages = [(int(stage.device), stage.first_layer, stage.last_layer) for stage in found.stages]
        assert is_allowed(constraints, stages)
        assert (found.free_value is None) is constraints.is_free
    assert outcomes == {"split", "no split", "nothing fits"}


def test_layers_kept_together_that_no_device_holds_are_named() -> None:
    """With the least memory that would hold them: in the stage that keeps fewest microbatches."""
    layers = tuple(
        LayerCost(name=f"{at}", forward_s=1, backward_s=2, activation_bytes=8, parameter_bytes=100, saved_bytes=10)
        for at in range(6)
    )
    problem = alike_problem(Chain(source="t", layers=layers), 2, 4, limit_bytes=700)
    together = Constraints(num_layers=6, together=(Run(2, 4),))
    with pytest.raises(NothingFitsError, match=r"layers 2-4, kept in one stage, need 662 B .*662 bytes. with no other"):
        split_chain(replace(problem, places=(replace(problem.places[0], limit_bytes=640),) * 2, constraints=together),
                    "step")  # fmt: skip
    pinned = Constraints(num_layers=6, pins=(Pin(Run(3, 5), 1),))
    smaller = (problem.places[0], replace(problem.places[1], limit_bytes=600))
    with pytest.raises(NothingFitsError, match=r"layers 3-5, kept in one stage, .* device 1 has 600 B"):
        split_chain(replace(problem, places=smaller, constraints=pinned), "step")


def test_hundreds_of_layers_under_constraints() -> None:
    """Every third layer begins a group; a layer in the middle is on the last device."""
    chain = random_chain(random.Random(1), 600)
    together = tuple(Run(at, at + 2) for at in range(0, 600, 3))
    constraints = Constraints(num_layers=600, together=together, pins=(Pin(Run(240, 240), 7),))
    split = split_chain(replace(alike_problem(chain, 8, 16), constraints=constraints), "step")
    stages = [(int(stage.device), stage.first_layer, stage.last_layer) for stage in split.stages]
    assert is_allowed(constraints, stages)
    assert split.free_value is not None
    assert split.free_value <= split.step_s <= 1.05 * split.free_value


def one_layer_each(asked: tuple[int, ...]) -> ChainProblem:
    """Of unlike devices each can hold the layer that is for it, and none of a larger one."""
    layers = tuple(LayerCost(name="x", forward_s=1, backward_s=1, activation_bytes=0, saved_bytes=0,
                             parameter_bytes=50 * (device + 1)) for device in asked)  # fmt: skip
    places = tuple(Place(name=f"d{at}", slowdown=1.0, limit_bytes=100 * (at + 1)) for at in range(len(asked)))
    problem = alike_problem(Chain(source="t", layers=layers), len(asked), 1)
    return replace(problem, places=places, kinds=tuple(range(len(asked))), first_alike=tuple(range(len(asked))))


def test_what_honours_pins_is_found_where_the_orders_tried_without_them_have_no_split() -> None:
    """Nine devices have more orders than are tried, and one fits: without pins it is missed, and that is said."""
    asked = (3, 0, 7, 5, 8, 2, 4, 1, 6)
    problem = one_layer_each(asked)
    with pytest.raises(NothingFitsError, match=r"fits: .* \(layer \d\) .*not proved over orders"):
        split_chain(problem, "step")
    pins = tuple(Pin(Run(layer, layer), device) for layer, device in enumerate(asked))
    split = split_chain(replace(problem, constraints=Constraints(num_layers=9, pins=pins)), "step")
    assert [stage.device for stage in split.stages] == [f"d{device}" for device in asked]
    assert split.free_value == split.step_s == 18.0
