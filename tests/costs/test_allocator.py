"""What a device's allocator makes of the bytes that are asked of it, and what a GPU has left to allocate."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ClusterConfig
from partition.costs import AllocatorRules, build_cluster
from partition.costs.allocator import EXACT, NUM_ONES, DeviceRoom, cuda_reserved_bytes, cuda_rules
from partition.errors import PartitionError

MIB = 2**20
RATES = {"flop_per_s": {"default": 1e12}, "memory_bytes_per_s": 1e11}


def cluster(*devices: dict[str, Any], **options: Any) -> Any:
    return build_cluster(ClusterConfig.model_validate({"devices": devices, **options}), "float32")


@pytest.mark.parametrize(("asked", "block"), [(0, 0), (1, 512), (512, 512), (513, 1024), (-1, -512), (-1024, -1024)])
def test_a_buffer_takes_whole_blocks_and_gives_the_same_back(asked: int, block: int) -> None:
    assert AllocatorRules(granularity_bytes=512).block_bytes(asked) == block
    assert EXACT.block_bytes(asked) == asked


@pytest.mark.parametrize(
    ("capability", "setting", "workspace_bytes"),
    [
        ("9.0", None, 32 * MIB),
        ("10.0", None, 32 * MIB),
        ("8.0", None, 8_519_680),
        ("7.5", None, 8_519_680),
        (None, None, 32 * MIB),
        ("9.0", ":4096:2:16:8", 8_519_680),
        ("8.0", ":4096:8", 32 * MIB),
        ("8.0", ":1:1", 1024),
        ("9.0", "nonsense", 32 * MIB),
    ],
)
def test_two_threads_have_a_workspace_of_cublas(
    capability: str | None, setting: str | None, workspace_bytes: int
) -> None:
    rules = cuda_rules(capability, workspace_setting=setting)
    assert rules == AllocatorRules(granularity_bytes=512, library_bytes=2 * workspace_bytes + 4 * NUM_ONES)


@pytest.mark.parametrize(("number_format", "num_bytes"), [("float64", 8), ("float32", 4), ("bfloat16", 6)])
def test_ones_are_in_every_format_that_is_summed(number_format: str, num_bytes: int) -> None:
    workspaces = 2 * 32 * MIB
    assert cuda_rules("9.0", number_format).library_bytes == workspaces + num_bytes * NUM_ONES


def test_the_most_that_may_be_allocated_leaves_context_and_headroom() -> None:
    room = DeviceRoom(reported_bytes=1000 * MIB, headroom_bytes=30 * MIB, context_bytes=500 * MIB)
    most = room.allocatable_bytes
    assert cuda_reserved_bytes(most) + room.context_bytes + room.headroom_bytes <= room.reported_bytes
    assert cuda_reserved_bytes(most + 1) + room.context_bytes + room.headroom_bytes > room.reported_bytes
    assert most == 450 * MIB


def test_a_named_gpu_is_counted_by_its_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    (device,) = cluster({"name": "A100-SXM-80GB"}).devices
    assert device.rules == cuda_rules("8.0")
    assert device.room.reported_bytes == int(79.1 * 2**30)
    assert device.memory_bytes == device.room.allocatable_bytes
    assert 0.95 < device.memory_bytes / device.room.reported_bytes < 0.97


def test_headroom_and_context_of_the_experiment_are_taken() -> None:
    given = {"kind": "cuda", "memory_bytes": 1000 * MIB, **RATES}
    (device,) = cluster(given, headroom=0.1, context_bytes=200 * MIB).devices
    assert (device.room.headroom_bytes, device.room.context_bytes) == (100 * MIB, 200 * MIB)
    assert device.memory_bytes == 680 * MIB


def test_simulated_devices_and_cpus_are_exact_and_give_all() -> None:
    both = cluster({"kind": "simulated", "memory_bytes": 1001}, {"kind": "cpu", "memory_bytes": 1003})
    assert both.rules is EXACT
    assert [device.memory_bytes for device in both.devices] == [1001, 1003]
    assert [device.room for device in both.devices] == [None, None]


def test_a_mixed_cluster_counts_every_device_as_the_strictest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    devices = ({"kind": "cpu", "memory_bytes": 10}, {"name": "A100-SXM-80GB"}, {"name": "H100-SXM-80GB"})
    assert cluster(*devices).rules == AllocatorRules(granularity_bytes=512, library_bytes=64 * MIB + 4 * NUM_ONES)


def test_a_gpu_too_small_for_its_context_is_refused_with_the_figures() -> None:
    with pytest.raises(PartitionError, match=r"cuda:0 has 512\.0 MiB, of which 800\.0 MiB are for its context"):
        cluster({"kind": "cuda", "memory_bytes": 512 * MIB, **RATES})


@pytest.mark.parametrize("option", [{"headroom": 0.1}, {"context_bytes": 1}])
def test_headroom_and_context_are_refused_without_a_gpu(option: dict[str, Any]) -> None:
    key = next(iter(option)).removesuffix("_bytes")
    with pytest.raises(ValueError, match=f"{key}: is for devices of kind cuda, and there are none"):
        cluster({"kind": "simulated", "memory_bytes": 1}, **option)
