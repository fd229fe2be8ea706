"""The optimal split of tables against brute force."""

from __future__ import annotations

import math
import random
import time

import pytest

from partition.costs import Chain, LayerCost
from partition.errors import NothingFitsError
from partition.plan.chain_problem import alike_problem
from partition.plan.chain_split import ChainSplit, Objective, split_chain
from tests.plan.chains import brute_force, random_chain, random_problem, stage_bytes, value


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
