"""What torch is said to be able to do, on machines of the test's making: none here has a CUDA device."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from partition.errors import RunError
from partition.runtime import doctor

PROC = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the version of the driver stands; no driver until it is written."""
    path = tmp_path / "version"
    monkeypatch.setattr(doctor, "DRIVER", path)
    return path


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, *, built: str | None, devices: int, complaint: str = "") -> None:
    def is_available() -> bool:
        if complaint:
            warnings.warn(complaint, stacklevel=1)
        return devices > 0

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)


def test_the_driver_is_read(driver: Path) -> None:
    assert doctor.read_driver() is None
    driver.write_text(PROC)
    assert doctor.read_driver() == "550.54.15"
    driver.write_text("")
    assert doctor.read_driver() is None


@pytest.mark.parametrize(
    ("built", "has_driver", "devices", "status"),
    [
        (None, False, 0, "ok"),
        (None, True, 0, "warn"),
        ("12.8", False, 0, "ok"),
        ("12.8", True, 0, "fail"),
        ("12.8", True, 1, "ok"),
    ],
)
def test_the_build_beside_the_driver(
    built: str | None, has_driver: bool, devices: int, status: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, built=built, devices=devices, complaint="" if devices else "driver is too old")
    if has_driver:
        driver.write_text(PROC)
    check = doctor.check_build()
    assert check.status == status
    assert ("driver is too old" in check.text) is (status == "fail")


def test_without_a_device_it_could_not_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, built="12.8", devices=0)
    assert [check.status for check in doctor.check_devices()] == ["untried"]


def test_a_device_that_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nstack")

    pretend_cuda(monkeypatch, built="12.8", devices=1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    checks = doctor.check_devices()
    assert [(check.name, check.status) for check in checks] == [("cuda:0", "fail")]
    assert checks[0].text == "does not compute: CUDA error: no kernel image is available"


@pytest.mark.parametrize(("devices", "status"), [(0, "untried"), (1, "untried"), (2, "ok")])
def test_nccl_needs_two_devices(devices: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, built="12.8", devices=devices)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(doctor, "try_pair", lambda _: 0.001)
    assert doctor.check_nccl().status == status


def test_backends_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert (doctor.check_gloo().status, doctor.check_nccl().status) == ("fail", "untried")


def test_a_pair_that_cannot_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> float:
        raise RunError("no message within 60 s")

    monkeypatch.setattr(doctor, "try_pair", fail)
    check = doctor.check_gloo()
    assert (check.status, check.text) == ("fail", "two processes cannot talk: no message within 60 s")
