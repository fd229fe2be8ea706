"""The norms, the penalty and the update of an optimizer step, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import OptimizerConfig
from partition.costs import optimizer_record
from partition.costs.work import Work
from tests.costs.stages import stage

WEIGHTS, BIASES = 3 * 5 + 5 * 2, 5 + 2
PENALTY_AND_NOISE: dict[str, Any] = {"penalty": 0.1, "noise": True}


@pytest.mark.parametrize(
    ("options", "norms"),
    [
        ({"bias": False}, 5 + 2),
        ({"bias": True}, 5 + 2 + 2),
        ({"bias": False, "penalty": 0.1}, 2 * (5 + 2)),
        ({"bias": True, "penalty": 0.1}, 2 * (5 + 2) + 2),
    ],
)
def test_a_norm_for_every_row_and_bias_and_again_for_rows_that_are_penalised(
    options: dict[str, Any], norms: int
) -> None:
    assert stage(**options).step.memory.peak_bytes == 4 * norms
    assert stage(**options).step.memory.net_bytes == 0


@pytest.mark.parametrize(
    ("optimizer", "passes"),
    [({}, 3), ({"momentum": 0.9}, 5), ({"name": "adam"}, 7), ({"name": "adamw"}, 7)],
)
def test_an_update_reads_the_gradient_and_moves_parameter_and_state_both_ways(
    optimizer: dict[str, Any], passes: int
) -> None:
    update = stage(**optimizer).step.kernels[-1]
    assert update.moved_bytes == 4 * passes * (WEIGHTS + BIASES)


def test_the_penalty_is_added_to_the_gradients_and_reads_the_weights_for_their_norm() -> None:
    plain, penalised, noisy = (stage(**of).step.kernels[0] for of in ({}, {"penalty": 0.1}, PENALTY_AND_NOISE))
    assert plain == Work(2 * (WEIGHTS + BIASES), 4 * (WEIGHTS + BIASES))
    assert penalised == Work(2 * (3 * WEIGHTS + BIASES), 4 * (5 * WEIGHTS + BIASES))
    assert noisy == Work(2 * (4 * WEIGHTS + BIASES), 4 * (6 * WEIGHTS + BIASES))
    assert stage(noise=True).step.kernels[0] == plain


def test_workspace_of_a_fused_step_is_that_of_its_kernel() -> None:
    records = {name: optimizer_record(OptimizerConfig(name=name, lr=0.1)) for name in ("sgd", "adam", "adamw")}
    assert {name: record.workspace_bytes for name, record in records.items()} == {"sgd": 0, "adam": 12, "adamw": 12}


def test_noise_takes_the_norms_of_the_rows_that_are_penalised_once_more() -> None:
    assert stage(**PENALTY_AND_NOISE).step.memory.peak_bytes == 4 * (3 * (5 + 2) + 2)
    assert stage(noise=True).step.memory.peak_bytes == stage().step.memory.peak_bytes
