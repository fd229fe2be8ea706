"""Devices and links as records."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from partition.config import ClusterConfig, DeviceConfig, LinkConfig, LinksConfig, load_config
from partition.errors import PartitionError

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "mnist.yaml"


def test_a_named_device_is_cuda_unless_said_otherwise() -> None:
    assert DeviceConfig.model_validate({"name": "L4-24GB"}).kind == "cuda"
    assert DeviceConfig(name="L4-24GB", kind="simulated").kind == "simulated"


def test_a_simulated_device_needs_memory_or_a_name() -> None:
    assert DeviceConfig(kind="simulated", memory_bytes=1).memory_bytes == 1
    with pytest.raises(ValidationError, match="a simulated device needs a limit"):
        DeviceConfig(kind="simulated")


def test_rates_by_number_format() -> None:
    device = DeviceConfig(kind="cpu", flop_per_s=(("default", 1.0), ("float64", 2.0)))
    assert device.flop_per_s_for("float64") == 2.0
    assert device.flop_per_s_for("float32") == 1.0
    assert DeviceConfig(kind="cpu").flop_per_s_for("float32") is None
    assert DeviceConfig.model_validate({"kind": "cpu", "flop_per_s": {"float64": 2.0, "default": 1.0}}) == device
    assert hash(device) is not None


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan"), 1e25])
def test_rates_are_positive_and_finite(rate: float) -> None:
    with pytest.raises(ValidationError):
        DeviceConfig(kind="cpu", flop_per_s=(("default", rate),))
    with pytest.raises(ValidationError):
        DeviceConfig(kind="cpu", memory_bytes_per_s=rate)


def test_links_assumed_and_said() -> None:
    assert LinksConfig().is_default
    assert LinksConfig().between(0, 3) == LinkConfig(bytes_per_s=10e9, latency_s=20e-6)
    assert not LinksConfig(intra_node=LinkConfig()).is_default
    assert ClusterConfig(devices=(DeviceConfig(kind="cpu"),)).links.is_default


def test_links_between_nodes() -> None:
    near, far = LinkConfig(bytes_per_s=2.0), LinkConfig(bytes_per_s=1.0)
    links = LinksConfig(intra_node=near, inter_node=far, devices_per_node=2)
    assert [links.between(0, j) for j in range(4)] == [near, near, far, far]
    assert links.between(2, 1) == far
    assert links.between(3, 2) == near


def test_links_between_nodes_and_the_size_of_a_node_go_together() -> None:
    with pytest.raises(ValidationError, match="devices_per_node"):
        LinksConfig(inter_node=LinkConfig())
    with pytest.raises(ValidationError, match="inter_node"):
        LinksConfig(devices_per_node=2)


def test_there_is_at_least_one_device_and_at_most_1024() -> None:
    device = DeviceConfig(kind="cpu")
    assert len(ClusterConfig(devices=(device,) * 1024).devices) == 1024
    for count in (0, 1025):
        with pytest.raises(ValidationError):
            ClusterConfig(devices=(device,) * count)


def test_headroom_and_context_are_read_with_their_units_and_refused_without_a_gpu() -> None:
    gpu = ["cluster.devices={name: A100-SXM-80GB, count: 2}", "cluster.headroom=0.05", "cluster.context=400 MiB"]
    cluster = load_config(EXAMPLE, overrides=gpu).cluster
    assert (cluster.headroom_of_cuda, cluster.context_bytes_of_cuda) == (0.05, 400 * 2**20)
    cluster = load_config(EXAMPLE, overrides=gpu[:1]).cluster
    assert (cluster.headroom_of_cuda, cluster.context_bytes_of_cuda) == (0.03, 800 * 2**20)
    with pytest.raises(PartitionError, match=r"cluster\.context.* is for devices of kind cuda, and there are none"):
        load_config(EXAMPLE, overrides=gpu[2:])
    with pytest.raises(PartitionError, match=r"cluster\.headroom.* 0\.9"):
        load_config(EXAMPLE, overrides=[*gpu[:1], "cluster.headroom=1"])
