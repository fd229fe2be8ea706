"""How this process takes part in a run, and leaves it: alone with all ranks, or as one that torchrun started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from partition.errors import PartitionError
from partition.plan import Candidate, Search
from partition.runtime.agreement import agree, facts
from partition.runtime.machine import check_devices
from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld
from partition.runtime.transport import broken_as
from partition.runtime.world import LocalWorld, World


def join(process: Process, timeout_s: float) -> Store:
    """Take part in the process group that torchrun prepared; its store.

    Raises PeerError where the others do not come within the time-out.
    """
    with broken_as(lambda: f"{process.world_size} processes to join"):
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    return PrefixStore("partition", dist.distributed_c10d._get_default_store())


def connect(process: Process, store: Store, search: Search, candidate: Candidate, num_train: int) -> ProcessWorld:
    """Agree with all ranks on what is about to run, and open every connection that it needs.

    Raises PartitionError where ranks were started differently, RunError where one does not come.
    """
    timeout_s = search.config.training.timeout_s
    agree(process, store, facts(search, candidate, num_train), timeout_s)
    used = search.cluster.devices[candidate.stages[0].device_index]
    is_cuda, gpu = used.kind == "cuda", gpu_of(process, candidate)
    if is_cuda:
        torch.cuda.set_device(gpu)
    return ProcessWorld(process, num_replicas=candidate.num_replicas, is_cuda=is_cuda, timeout_s=timeout_s, gpu=gpu)


def gpu_of(process: Process, candidate: Candidate) -> int:
    """The GPU of this process: the one that the plan puts its rank on, where all are of this host; else its place."""
    if process.local_world_size < process.world_size:
        return process.local_rank
    return next(plan.device_index for plan in candidate.stages if plan.rank == process.rank)


def check_world_size(process: Process, candidate: Candidate) -> None:
    """Raise PartitionError where the plan takes another number of processes than there are."""
    if process.world_size != candidate.num_devices:
        raise PartitionError(
            f"{candidate.name} takes {candidate.num_devices} processes, one for each device, and {process.world_size} "
            f"were started; use --nproc {candidate.num_devices}, or --strategy with a candidate of "
            f"{process.world_size} devices"
        )


@contextmanager
def joined(search: Search, candidate: Candidate, num_train: int) -> Iterator[World]:
    """The world of a candidate: under torchrun this process among the others, elsewhere all ranks in this process.

    Raises PartitionError and RunError as `connect` does, and where this machine lacks a device.
    """
    process = Process.of_environment()
    if process is None:
        if candidate.sharding:
            raise PartitionError(
                f"{candidate.name} takes one process for each device: train it with --nproc {candidate.num_devices}"
            )
        check_devices(search, candidate)
        yield LocalWorld(candidate.num_replicas, candidate.num_devices // candidate.num_replicas)
        return
    check_world_size(process, candidate)
    check_devices(search, candidate, process.host_ranks)
    store = join(process, search.config.training.timeout_s)
    world = connect(process, store, search, candidate, num_train)
    try:
        yield world
    finally:
        world.close()
    leave()


def needs(candidate: Candidate) -> tuple[bool, bool]:
    """Whether this process reads inputs, and whether it reads targets: the first stage does, and the last."""
    process = Process.of_environment()
    ranks = range(candidate.num_devices) if process is None else (process.rank,)
    stages = {plan.stage_index for plan in candidate.stages if plan.rank in ranks}
    return 0 in stages, candidate.num_stages - 1 in stages


def leave() -> None:
    """Close all connections."""
    if dist.is_initialized():
        dist.destroy_process_group()
