"""What a table's stages hold, by running sums, against their steps one by one."""

from __future__ import annotations

import random

import pytest

from partition.costs import LayerCost
from partition.costs.chain_memory import ChainBytes, ChainStageMemory
from partition.costs.memory import memory_effect


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_those_of_the_steps(seed: int) -> None:
    choose = random.Random(seed)
    count = choose.randint(1, 8)
    layers = [
        LayerCost(
            name="layer",
            forward_s=1.0,
            backward_s=1.0,
            activation_bytes=choose.choice((0, choose.randint(0, 9))),
            parameter_bytes=choose.randint(0, 9),
            saved_bytes=choose.choice((None, choose.randint(0, 9))),
        )
        for _ in range(count)
    ]
    of = ChainBytes(layers)
    for first in range(count):
        for last in range(first, count):
            stage = ChainStageMemory(of, first, last)
            for action in (stage.forward, stage.backward, stage.input_grad, stage.weight_grad):
                effect = memory_effect(tuple(action.find_steps()), 0)
                assert (action.net_bytes, action.peak_bytes) == (effect.net_bytes, effect.peak_bytes)
                assert sum(action.net_by_category.values()) == effect.net_bytes
                assert sum(action.peak_by_category.values()) == effect.peak_bytes


def test_parameters_and_the_optimizer_are_summed_over_rows() -> None:
    row = LayerCost(name="layer", forward_s=1.0, backward_s=1.0, activation_bytes=1, parameter_bytes=7,
                    optimizer_bytes=3)  # fmt: skip
    of = ChainBytes([row] * 4)
    assert (of.of_stage(of.parameters, 1, 2), of.of_stage(of.optimizer, 1, 3)) == (14, 9)
