"""The parts of a stage's costs that no product pays for: losses, messages, norms of examples."""

from __future__ import annotations

import pytest

from partition.config import ClusterConfig
from partition.costs import build_cluster
from partition.costs.work import Work, operator_key
from partition.graph import Category
from partition.graph.program import operators
from tests.costs.stages import stage


@pytest.mark.parametrize(("first", "last", "numbers"), [(0, 0, 1), (1, 1, 1 + 6), (0, 1, 1 + 6)])
def test_only_the_last_stage_keeps_a_loss_of_every_microbatch(first: int, last: int, numbers: int) -> None:
    assert stage(first, last).static_bytes(6)[Category.WORKSPACE] == 4 * numbers


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


def test_norms_of_examples_read_both_rows_and_are_known_by_their_shape() -> None:
    cost = stage(noise=True).microbatch(7).weight_grad
    assert cost.kernels[0] == Work(2 * 7 * (5 + 2), 4 * 7 * (5 + 2))
    assert cost.memory.peak_bytes == 2 * 4 * 7 > stage().microbatch(7).weight_grad.memory.peak_bytes
    measured = stage(noise=True)
    keys = [operator_key(one, measured.network.loss) for one in operators(measured.program.weight_grad)]
    assert keys[:2] == ["example norms 5x2 bias", "weight gradient 5x2 bias"]
