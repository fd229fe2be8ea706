"""The ledger of a device and its limit."""

from __future__ import annotations

import pytest
import torch

from partition.costs import Device
from partition.errors import DeviceMemoryError
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
