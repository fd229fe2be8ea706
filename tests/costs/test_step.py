"""The norms, the penalty and the update of an optimizer step, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import CostModel, optimizer_record
from partition.costs.work import Work
from partition.graph import build_network
from tests.costs.stages import stage

WEIGHTS, BIASES = 3 * 5 + 5 * 2, 5 + 2


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


def test_the_penalty_reads_the_weights_for_their_norm() -> None:
    plain, penalised = stage().step.kernels[0], stage(penalty=0.1).step.kernels[0]
    assert plain == Work(2 * (WEIGHTS + BIASES), 4 * (WEIGHTS + BIASES))
    assert penalised == Work(2 * (2 * WEIGHTS + BIASES), 4 * (2 * WEIGHTS + BIASES))


def test_workspace_of_a_fused_step_is_that_of_its_kernel() -> None:
    records = {name: optimizer_record(OptimizerConfig(name=name, lr=0.1)) for name in ("sgd", "adam", "adamw")}
    assert {name: record.workspace_bytes for name, record in records.items()} == {"sgd": 0, "adam": 12, "adamw": 12}


def test_noise_takes_the_penalty_off_by_a_product_for_each_weight_and_then_in_pieces() -> None:
    norms, products, number = 2 * (5 + 2) + 2, 2, 1
    piece, of_its_rows = 3 * 5, 5
    assert stage(noise=True, penalty=0.1).step.memory.peak_bytes == 4 * max(norms + products + number,
                                                                            piece + of_its_rows)  # fmt: skip
    wide = build_network(ModelConfig.model_validate({"in_features": 30, "hidden_features": (2,), "out_features": 1,
                                                     "l2_penalty": 0.1, "loss": "mse"}))  # fmt: skip
    record = optimizer_record(OptimizerConfig(lr=0.1))
    assert CostModel(wide, record, 4, has_noise=True).stage(0, 1).step.memory.peak_bytes == 4 * (30 * 2 + 2)
    assert stage(noise=True).step.memory.peak_bytes == stage().step.memory.peak_bytes
