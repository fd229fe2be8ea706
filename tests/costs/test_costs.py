"""Bytes, operations and seconds by hand."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ClusterConfig, ModelConfig, OptimizerConfig
from partition.costs import CostModel, build_cluster, optimizer_record
from partition.costs.hardware import _data_sheets
from partition.costs.work import Work, seconds_on
from partition.errors import PartitionError
from partition.graph import Category, build_network

NETWORK = build_network(
    ModelConfig.model_validate(
        {"in_features": 3, "hidden_features": (5,), "out_features": 2, "activation": "gelu", "l2_penalty": 0.1}
    )
)


def optimizer(**options: Any) -> Any:
    return optimizer_record(OptimizerConfig.model_validate({"lr": 0.1, **options}))


def devices(*entries: dict[str, Any]) -> Any:
    return build_cluster(ClusterConfig.model_validate({"devices": entries}), "float32")


def test_static_bytes_of_one_device() -> None:
    stage = CostModel(NETWORK, optimizer(momentum=0.9), 4).stage(0, 1)
    elements = 3 * 5 + 5 + 5 * 2 + 2
    assert stage.static_bytes(num_microbatches=6) == {
        Category.PARAMETERS: 4 * elements,
        Category.GRADIENTS: 4 * elements,
        Category.OPTIMIZER: 4 * elements,
        Category.WORKSPACE: 4 * (6 + 1),
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0), ({"momentum": 0.5}, 80), ({"name": "adam"}, 2 * 80 + 3 * 4), ({"name": "adamw"}, 2 * 80 + 3 * 4)],
)
def test_optimizer_state(options: dict[str, Any], expected: int) -> None:
    """Ten elements of 8 bytes in three tensors; Adam counts the steps of each tensor in a float32."""
    assert optimizer(**options).state_bytes(10, 3, 8) == expected


def test_forward_bytes_by_hand() -> None:
    """GELU in a first stage of layer 0: x and z0 stay, h0 waits to be sent."""
    forward = CostModel(NETWORK, optimizer(), 4).stage(0, 0).microbatch(7).forward
    assert forward.memory.net_bytes == 4 * 7 * (3 + 5 + 5)
    assert forward.memory.net_by_category == {
        Category.DATA: 4 * 7 * 3,
        Category.ACTIVATIONS: 4 * 7 * 5,
        Category.BOUNDARY: 4 * 7 * 5,
    }


def test_loss_workspace_is_alive_at_the_peak_of_the_last_forward() -> None:
    """The gradient of the logits beside the logits, int64 targets and one workspace column."""
    forward = CostModel(NETWORK, optimizer(), 4).stage(1, 1).microbatch(7).forward
    assert forward.memory.peak_bytes == 7 * (4 * 2 + 4 * 2 + 8 + 4)
    assert forward.memory.net_bytes == 7 * 4 * 2


def test_flop_of_the_products() -> None:
    """2 B I O for each product; the first layer has no input gradient."""
    cost = CostModel(NETWORK, optimizer(), 4).stage(0, 1).microbatch(7)
    in_w = [work.flop for work in cost.weight_grad.kernels]
    assert in_w == [2 * 7 * 5 * 2 + 7 * 2, 2 * 7 * 3 * 5 + 7 * 5]
    assert [work.flop for work in cost.input_grad.kernels].count(2 * 7 * 5 * 2) == 1
    assert 2 * 7 * 3 * 5 not in [work.flop for work in cost.input_grad.kernels]


def test_backward_costs_what_its_two_halves_cost() -> None:
    cost = CostModel(NETWORK, optimizer(), 4).stage(0, 1).microbatch(7)
    assert sorted(cost.backward.kernels) == sorted((*cost.input_grad.kernels, *cost.weight_grad.kernels))


def test_kernels_are_bound_by_arithmetic_or_memory() -> None:
    (device,) = devices(
        {"kind": "simulated", "memory_bytes": 1, "flop_per_s": {"default": 10.0}, "memory_bytes_per_s": 2.0}
    ).devices
    assert seconds_on(device, (Work(100, 2), Work(1, 100))) == 10.0 + 50.0


@pytest.mark.parametrize("name", _data_sheets())
@pytest.mark.parametrize("number_format", ["float32", "float64"])
def test_every_named_device_resolves(name: str, number_format: str) -> None:
    cluster = build_cluster(ClusterConfig.model_validate({"devices": ({"name": name},)}), number_format)
    (device,) = cluster.devices
    assert device.memory_bytes > 2**34
    assert device.flop_per_s > 1e11
    assert name in cluster.cost_source


def test_unknown_device_lists_the_known() -> None:
    with pytest.raises(PartitionError, match="unknown device 'H1000'; known are H100-SXM-80GB"):
        devices({"name": "H1000"})


def test_cuda_device_without_rates_is_refused() -> None:
    with pytest.raises(PartitionError, match="give them, or name the device"):
        devices({"kind": "cuda", "memory_bytes": 10})


def test_cuda_device_without_memory_is_refused() -> None:
    with pytest.raises(PartitionError, match="cuda:0 has no memory"):
        devices({"kind": "cuda", "flop_per_s": {"default": 1.0}, "memory_bytes_per_s": 1.0})


def test_cpus_share_the_hosts_memory_and_assumed_rates_are_said() -> None:
    cluster = devices({"kind": "cpu"}, {"kind": "cpu"})
    one = devices({"kind": "cpu"})
    assert cluster.devices[0].memory_bytes == one.devices[0].memory_bytes // 2
    assert "assumed" in cluster.cost_source


def test_neighbours_without_a_difference_are_alike() -> None:
    small, large = ({"kind": "simulated", "memory_bytes": size} for size in (1, 2))
    assert devices(small, small, large, large, small).first_alike == (0, 0, 2, 2, 4)


def test_devices_of_several_nodes_differ_in_their_links() -> None:
    links = {"inter_node": {"bytes_per_s": 10.0}, "devices_per_node": 2}
    entries = ({"kind": "simulated", "memory_bytes": 1},) * 4
    cluster = build_cluster(ClusterConfig.model_validate({"devices": entries, "links": links}), "float32")
    assert cluster.first_alike == (0, 1, 2, 3)
