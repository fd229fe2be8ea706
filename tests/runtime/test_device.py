"""The ledger of a device and its limit."""

from __future__ import annotations

import pytest
import torch

from partition.costs import AllocatorRules, Device
from partition.errors import DeviceMemoryError, RunError
from partition.graph import Category
from partition.runtime.device import RuntimeDevice


@pytest.fixture
def device() -> RuntimeDevice:
    """A device of 100 bytes."""
    spec = Device(name="simulated:3", kind="simulated", memory_bytes=100, flop_per_s=1.0, memory_bytes_per_s=1.0,
                  source="test")  # fmt: skip
    return RuntimeDevice(spec, torch.float32)


def test_tensors_are_of_the_devices_format_unless_another_is_asked_for(device: RuntimeDevice) -> None:
    assert device.take((2,), Category.DATA, "x").dtype == torch.float32
    assert device.take((2,), Category.DATA, "targets", torch.int64).dtype == torch.int64
    assert device.held_bytes == 2 * 4 + 2 * 8


def test_the_peak_stays_when_bytes_go(device: RuntimeDevice) -> None:
    tensor = device.take((3, 4), Category.WORKSPACE, "scratch")
    device.give(tensor, Category.WORKSPACE)
    assert (device.held_bytes, device.peak_bytes) == (0, 48)


def test_categories_add_up_to_what_is_held(device: RuntimeDevice) -> None:
    device.take((3,), Category.PARAMETERS, "weight")
    device.count(5, Category.WORKSPACE, "scratch")
    assert device.held_by_category == {Category.PARAMETERS: 12, Category.WORKSPACE: 5}
    assert device.held_bytes == 17


def test_a_number_counts_as_one_element(device: RuntimeDevice) -> None:
    device.take((), Category.OPTIMIZER, "step count")
    assert device.held_bytes == 4


def test_the_last_byte_can_be_had(device: RuntimeDevice) -> None:
    device.take((25,), Category.PARAMETERS, "weight")
    assert device.held_bytes == 100


def test_one_byte_too_many_is_refused_and_nothing_is_entered(device: RuntimeDevice) -> None:
    device.count(60, Category.PARAMETERS, "weight")
    with pytest.raises(DeviceMemoryError):
        device.count(41, Category.WORKSPACE, "scratch")
    assert (device.held_bytes, device.peak_bytes) == (60, 60)


def test_the_error_holds_every_figure(device: RuntimeDevice) -> None:
    device.count(60, Category.PARAMETERS, "weight")
    with pytest.raises(DeviceMemoryError) as caught:
        device.take((11,), Category.ACTIVATIONS, "z0 of microbatch 2")
    error = caught.value
    assert (error.device, error.wanted_bytes, error.free_bytes, error.limit_bytes) == ("simulated:3", 44, 40, 100)
    assert "z0 of microbatch 2 wants 44 bytes, 40 of 100 bytes are free" in str(error)
    assert "\n" not in str(error)


def test_a_gpu_with_too_little_free_is_refused_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process keeps in its allocator from before counts as free."""
    spec = Device(name="cuda:0", kind="cuda", memory_bytes=2**30, flop_per_s=1.0, memory_bytes_per_s=1.0, source="test")
    device = RuntimeDevice(spec, torch.float32)
    for name, value in (("mem_get_info", (2**20, 2**31)), ("memory_reserved", 2**20), ("memory_allocated", 2**19)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    device.check_free(3 * 2**19)
    with pytest.raises(RunError, match=r"cuda:0 has 1\.5 MiB of 2\.0 GiB free, the plan reserves 1\.5 MiB"):
        device.check_free(3 * 2**19 + 1)


def test_blocks_are_entered_and_given_back_whole() -> None:
    spec = Device(name="simulated:0", kind="simulated", memory_bytes=1500, flop_per_s=1.0, memory_bytes_per_s=1.0,
                  source="test")  # fmt: skip
    device = RuntimeDevice(spec, torch.float32, rules=AllocatorRules(granularity_bytes=512))
    tensor = device.take((129,), Category.DATA, "x")
    assert device.held_bytes == 1024
    with pytest.raises(DeviceMemoryError):
        device.take((1,), Category.DATA, "one number")
    device.give(tensor, Category.DATA)
    assert device.held_bytes == 0
