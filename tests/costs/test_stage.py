"""The parts of a stage's costs that no product pays for: losses, norms, updates, messages."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ClusterConfig, ModelConfig, OptimizerConfig
from partition.costs import CostModel, StageCost, build_cluster, optimizer_record
from partition.costs.work import Work, operator_key
from partition.graph import Category, build_network
from partition.graph.program import operators

WEIGHTS, BIASES = 3 * 5 + 5 * 2, 5 + 2


def stage(
    first: int = 0, last: int = 1, *, penalty: float = 0.0, bias: bool = True, noise: bool = False, **optimizer: Any
) -> StageCost:
    model = {"in_features": 3, "hidden_features": (5,), "out_features": 2, "l2_penalty": penalty, "bias": bias}
    record = optimizer_record(OptimizerConfig.model_validate({"lr": 0.1, **optimizer}))
    network = build_network(ModelConfig.model_validate(model))
    return CostModel(network, record, 4, has_noise=noise).stage(first, last)


@pytest.mark.parametrize(("first", "last", "numbers"), [(0, 0, 1), (1, 1, 1 + 6), (0, 1, 1 + 6)])
def test_only_the_last_stage_keeps_a_loss_of_every_microbatch(first: int, last: int, numbers: int) -> None:
    assert stage(first, last).static_bytes(6)[Category.WORKSPACE] == 4 * numbers


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


def test_affine_reads_its_operands_once_and_a_weight_gradient_is_read_and_written() -> None:
    cost = stage().microbatch(7)
    assert cost.forward.kernels[1] == Work(2 * 7 * 15, 4 * (7 * (3 + 5) + 15 + 5))
    assert cost.weight_grad.kernels[-1] == Work(2 * 7 * 15 + 7 * 5, 4 * (7 * (3 + 5) + 2 * (15 + 5)))


def test_messages_carry_the_output_and_the_gradient_of_the_input() -> None:
    first, last = stage(0, 0).microbatch(7), stage(1, 1).microbatch(7)
    assert (first.output_bytes, first.grad_input_bytes) == (4 * 7 * 5, 0)
    assert (last.output_bytes, last.grad_input_bytes) == (0, 4 * 7 * 5)


def test_a_message_takes_latency_and_its_bytes() -> None:
    device = {"kind": "simulated", "memory_bytes": 1}
    links = {"intra_node": {"bytes_per_s": 100.0, "latency_s": 0.5},
             "inter_node": {"bytes_per_s": 10.0, "latency_s": 2.0}, "devices_per_node": 2}  # fmt: skip
    cluster = build_cluster(ClusterConfig.model_validate({"devices": (device,) * 4, "links": links}), "float32")
    assert cluster.transfer_s(0, 1, 50) == 0.5 + 0.5
    assert cluster.transfer_s(1, 2, 50) == 2.0 + 5.0


@pytest.mark.parametrize(("first", "last", "numbers"), [(0, 0, 1 + 6), (0, 1, 1 + 6 + 2 * 6)])
def test_noise_keeps_a_norm_of_every_layer_and_microbatch(first: int, last: int, numbers: int) -> None:
    assert stage(first, last, noise=True).static_bytes(6)[Category.WORKSPACE] == 4 * numbers


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


def test_norms_of_examples_read_both_rows_and_are_known_by_their_shape() -> None:
    cost = stage(noise=True).microbatch(7).weight_grad
    assert cost.kernels[0] == Work(2 * 7 * (5 + 2), 4 * 7 * (5 + 2))
    assert cost.memory.peak_bytes == 2 * 4 * 7 > stage().microbatch(7).weight_grad.memory.peak_bytes
    measured = stage(noise=True)
    keys = [operator_key(one, measured.network.loss) for one in operators(measured.program.weight_grad)]
    assert keys[:2] == ["example norms 5x2 bias", "weight gradient 5x2 bias"]
