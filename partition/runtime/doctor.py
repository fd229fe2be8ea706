"""What torch can do on this machine: its build against the driver, its devices, its backends, a message between two."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from partition.errors import RunError
from partition.record.checks import Check
from partition.runtime.pair import try_pair
from partition.units import format_bytes, format_seconds

DRIVER = Path("/proc/driver/nvidia/version")


def check_torch() -> list[Check]:
    """All that needs torch."""
    return [check_build(), check_threads(), *check_devices(), check_gloo(), check_nccl()]


def check_build() -> Check:
    """The version of torch, and what it was built for beside what is here."""
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    driver = read_driver()
    text = f"{torch.__version__}, built for {built_for}, NVIDIA driver {driver or 'not found'}"
    if torch.version.cuda is None:
        advice = "; the build for CPU cannot use it, install one for CUDA from pytorch.org"
        return Check(name="torch", status="warn" if driver else "ok", text=text + (advice if driver else ""))
    is_usable, complaint = ask_cuda()
    if is_usable or driver is None:
        return Check(name="torch", status="ok", text=text)
    return Check(
        name="torch", status="fail", text=f"{text}; CUDA cannot be used: {complaint or 'no device'}; match the two"
    )


def read_driver() -> str | None:
    """The version of the NVIDIA driver, None where there is none."""
    try:
        words = DRIVER.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), "of an unknown version")


def ask_cuda() -> tuple[bool, str]:
    """Whether torch can use CUDA here, and what it says where it cannot."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_usable = torch.cuda.is_available()
    return is_usable, " ".join(str(caught[0].message).split())[:200] if caught else ""


def check_threads() -> Check:
    """Threads of an operator."""
    return Check(name="threads", status="ok", text=f"{torch.get_num_threads()} for each operator of torch")


def check_devices() -> list[Check]:
    """Every CUDA device: its memory, and whether it computes."""
    if not ask_cuda()[0]:
        return [Check(name="devices", status="untried", text="no CUDA device; kind: cpu and kind: simulated run here")]
    return [_check_device(index) for index in range(torch.cuda.device_count())]


def _check_device(index: int) -> Check:
    name = f"cuda:{index}"
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        ones = torch.ones(64, 64, device=name)
        is_right = bool((ones @ ones == 64).all().item())
    except RuntimeError as error:
        return Check(name=name, status="fail", text=f"does not compute: {_first_line(error)}")
    text = f"{torch.cuda.get_device_name(index)}, {format_bytes(total_bytes)}, {format_bytes(free_bytes)} free"
    return Check(name=name, status="ok" if is_right else "fail", text=text if is_right else f"{text}; computes wrongly")


def check_gloo() -> Check:
    """Two processes on the loopback interface."""
    if not dist.is_available() or not dist.is_gloo_available():
        return Check(name="gloo", status="fail", text="not in this build of torch; install one with torch.distributed")
    return _try("gloo")


def check_nccl() -> Check:
    """Two processes on two devices, where there are two."""
    if not dist.is_available() or not dist.is_nccl_available():
        return Check(name="nccl", status="untried", text="not in this build of torch; needed for kind: cuda only")
    num_devices = torch.cuda.device_count() if ask_cuda()[0] else 0
    if num_devices < 2:
        text = f"in this build, but {num_devices} CUDA devices are here and a message needs two"
        return Check(name="nccl", status="untried", text=text)
    return _try("nccl")


def _try(backend: str) -> Check:
    try:
        took_s = try_pair(backend)
    except (RunError, OSError, RuntimeError) as error:
        return Check(name=backend, status="fail", text=f"two processes cannot talk: {_first_line(error)}")
    return Check(name=backend, status="ok", text=f"1 MiB between two processes and back in {format_seconds(took_s)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
