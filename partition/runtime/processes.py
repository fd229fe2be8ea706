"""One process for each rank, joined by torch.distributed: gloo between CPUs, NCCL between GPUs.

Messages have a communicator for each direction, down to higher ranks and up to lower ones, so that no send queues
behind a receive of the same pair and the order within one direction is the schedule's on both sides. A receive is
posted as early as the row says and waited for when its tensor is needed; a send is waited for when its buffer is.
Numbers of a few bytes (losses, norms, stop requests) go through a group of their own, on the host.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.device_mesh import DeviceMesh

from partition.config import flatten, resolve
from partition.costs import Device
from partition.errors import PartitionError, PeerError, RunError
from partition.plan import Candidate, Search
from partition.runtime.channel import Channels, Delivery, MessageKey
from partition.runtime.process import Process
from partition.runtime.workers import check_devices
from partition.runtime.world import LocalWorld, Numbers, Shared, World


class ProcessWorld:
    """The rank of this process among those of all others."""

    is_shared = True

    def __init__(self, process: Process, *, num_replicas: int, is_cuda: bool, timeout_s: float) -> None:
        self.process = process
        self.num_replicas = num_replicas
        self.ranks_per_replica = process.world_size // num_replicas
        self.ranks: Sequence[int] = (process.rank,)
        self._is_cuda = is_cuda
        self._timeout = timedelta(seconds=timeout_s)
        self._latest_share: Shared | None = None
        self._connect()

    def _connect(self) -> None:
        """Make all groups, in the same order on every rank."""
        grid = torch.arange(self.process.world_size).reshape(self.num_replicas, self.ranks_per_replica)
        backend = "nccl" if self._is_cuda else "gloo"
        with _broken_as("the other ranks to connect"):
            self._control = self._group(range(self.process.world_size), "gloo")
            rows = [(self._group(row, backend), self._group(row, backend)) for row in grid.tolist()]
            columns = [self._group(column, backend) for column in grid.T.tolist()]
            self.down, self.up = rows[self._replica]
            mesh_groups = [columns[self._position], self.down]
            self.mesh = DeviceMesh.from_group(
                mesh_groups, "cuda" if self._is_cuda else "cpu", grid, mesh_dim_names=("replica", "position")
            )
            self._warm_up()

    def _group(self, ranks: Sequence[int], backend: str) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(list(ranks), timeout=self._timeout, backend=backend)
        return group

    @property
    def message_device(self) -> torch.device:
        """Where tensors are that the communicators take."""
        return torch.device("cuda", self.process.local_rank) if self._is_cuda else torch.device("cpu")

    def _warm_up(self) -> None:
        """A first message over every pair of ranks and a first sum: what connects lazily connects now."""
        number = torch.zeros(1, device=self.message_device)
        ranks = range(self._base, self._base + self.ranks_per_replica)
        for source in ranks:
            for destination in ranks:
                if source != destination and self.process.rank in (source, destination):
                    group = self.down if source < destination else self.up
                    post = dist.isend if self.process.rank == source else dist.irecv
                    peer = destination if self.process.rank == source else source
                    work = post(number, peer, group=group)
                    assert work is not None, "both ends are in the group"
                    work.wait()
        if self.num_replicas > 1:
            dist.all_reduce(number, group=self.mesh.get_group("replica"))

    @property
    def _replica(self) -> int:
        return self.process.rank // self.ranks_per_replica

    @property
    def _position(self) -> int:
        return self.process.rank % self.ranks_per_replica

    @property
    def _base(self) -> int:
        """The first rank of this replica."""
        return self._replica * self.ranks_per_replica

    def torch_device(self, spec: Device) -> torch.device:
        """The GPU of this process's place on its host, or the CPU."""
        return self.message_device if spec.kind == "cuda" else torch.device("cpu")

    def channels(self, replica: int, placement: tuple[int, ...], transfer_s: Callable[[MessageKey], float]) -> Channels:
        """Messages between the ranks of this replica; what the seconds of a link are predicted to be plays no part."""
        del replica, transfer_s
        return ProcessChannels(self, [self._base + position for position in placement])

    def sum_gradients(
        self, rank: int, stage: int, gradients: Sequence[Tensor], now_s: float, seconds: float
    ) -> Delivery:
        """Begin to add a stage's gradients over replicas, in place."""
        del rank, now_s, seconds
        group = self.mesh.get_group("replica")
        what = f"the gradients of stage {stage} from the other replicas"
        with _broken_as(what):
            works = [dist.all_reduce(gradient, group=group, async_op=True) for gradient in gradients]
        return ProcessDelivery(works, what)

    def share(self, rank: int, values: Numbers, now_s: float) -> Shared:
        """Give this rank's numbers to all: every rank fills its own row, and the rows of all are added."""
        del rank, now_s
        # Not all_gather, for which gloo takes two buffers from the allocator that no ledger knows of; x + 0 is exact.
        rows = np.zeros((self.process.world_size, len(values)))
        rows[self.process.rank] = values
        with _broken_as("the numbers of the other ranks"):
            work = dist.all_reduce(torch.from_numpy(rows), group=self._control, async_op=True)
        return ProcessShare([work], list(rows))


class ProcessDelivery:
    """Transfers under way."""

    def __init__(self, works: Sequence[Any], what: str) -> None:
        self._works = works
        self._what = what
        self.completed_s = 0.0

    def wait(self) -> bool:
        """Wait until the transfers are complete; on a GPU, make its stream wait.

        Raises PeerError where the other side has gone or has not come within the time-out.
        """
        if self._works:
            with _broken_as(self._what):
                for work in self._works:
                    work.wait()
            self._works = ()
            self.completed_s = time.perf_counter()
        return True


class ProcessShare(ProcessDelivery):
    """Numbers of all ranks under way."""

    def __init__(self, works: Sequence[Any], values: Sequence[Numbers]) -> None:
        super().__init__(works, "the numbers of the other ranks")
        self.values = values
        """By rank."""


class ProcessChannels:
    """Messages between this process and the others of its replica."""

    def __init__(self, world: ProcessWorld, rank_of_stage: Sequence[int]) -> None:
        self._world = world
        self._rank_of_stage = rank_of_stage

    def send(self, key: MessageKey, tensor: Tensor, now_s: float) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""
        del now_s
        peer = self._rank_of_stage[key.destination_stage]
        return self._post(dist.isend, tensor, peer, f"rank {peer} to take {key.send}", is_down=peer > self._rank)

    def receive(self, key: MessageKey, into: Tensor, now_s: float) -> Delivery:
        """Post a receive into a buffer that has the shape of the tensor sent."""
        del now_s
        peer = self._rank_of_stage[key.source_stage]
        return self._post(dist.irecv, into, peer, f"{key.send} from rank {peer}", is_down=peer < self._rank)

    @property
    def _rank(self) -> int:
        return self._world.process.rank

    def _post(self, post: Callable[..., Any], tensor: Tensor, peer: int, what: str, *, is_down: bool) -> Delivery:
        with _broken_as(what):
            work = post(tensor, peer, group=self._world.down if is_down else self._world.up)
        return ProcessDelivery((work,), what)


@contextmanager
def _broken_as(waiting_for: str) -> Iterator[None]:
    """Turn what torch.distributed raises into a PeerError that says what was waited for."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(waiting_for=waiting_for, cause=_first_sentence(str(error))) from error


def _first_sentence(message: str) -> str:
    """What went wrong, of a message that may begin with a place in C++ and go on with advice and a stack trace."""
    line = (message.strip().splitlines() or ["it failed without a message"])[0]
    return re.sub(r"^\[[^\]]*\.(cc|cpp|h):\d+\]\s*", "", line).split(". ")[0]


# Joining


def join(process: Process, timeout_s: float) -> Store:
    """Take part in the process group that torchrun prepared; its store.

    Raises PeerError where the others do not come within the time-out.
    """
    with _broken_as(f"{process.world_size} processes to join"):
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    return PrefixStore("partition", dist.distributed_c10d._get_default_store())


def connect(process: Process, store: Store, search: Search, candidate: Candidate, num_train: int) -> ProcessWorld:
    """Agree with all ranks on what is about to run, and open every connection that it needs.

    Raises PartitionError where ranks were started differently, RunError where one does not come.
    """
    timeout_s = search.config.training.timeout_s
    agree(process, store, facts(search, candidate, num_train), timeout_s)
    used = search.cluster.devices[candidate.stages[0].device_index]
    is_cuda = used.kind == "cuda"
    if is_cuda:
        torch.cuda.set_device(process.local_rank)
    return ProcessWorld(process, num_replicas=candidate.num_replicas, is_cuda=is_cuda, timeout_s=timeout_s)


def check_world_size(process: Process, candidate: Candidate) -> None:
    """Raise PartitionError where the plan takes another number of processes than there are."""
    if process.world_size != candidate.num_devices:
        raise PartitionError(
            f"{candidate.name} takes {candidate.num_devices} processes, one for each device, and {process.world_size} "
            f"were started; use --nproc {candidate.num_devices}, or --strategy with a candidate of "
            f"{process.world_size} devices"
        )


def facts(search: Search, candidate: Candidate, num_train: int) -> dict[str, object]:
    """What all ranks must have alike: versions, experiment, candidate, data."""
    found: dict[str, object] = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "byte order": sys.byteorder,
        "training examples": num_train,
    }
    found |= flatten(resolve(search.config))
    found |= {f"candidate.{key}": value for key, value in flatten(asdict(candidate))}
    return found


def agree(process: Process, store: Store, mine: Mapping[str, object], timeout_s: float) -> None:
    """Make sure that all ranks are about to do the same, before any tensor is sent.

    Raises PartitionError naming a rank and the first fact in which it differs from rank 0.
    """
    store.set(f"facts/{process.rank}", json.dumps(mine))
    keys = [f"facts/{rank}" for rank in range(process.world_size)]
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError:
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        names = ", ".join(map(str, missing))
        raise RunError(f"rank {names} did not come within {timeout_s:g} s (training.timeout)") from None
    of_ranks = [json.loads(store.get(key)) for key in keys]
    store.set(f"read/{process.rank}", "")
    # Where rank 0 keeps the store itself, it must not leave with it before the others have read.
    with suppress(RuntimeError):
        store.wait([f"read/{rank}" for rank in range(process.world_size)], timedelta(seconds=5))
    check_agreement(of_ranks)


def check_agreement(of_ranks: Sequence[Mapping[str, object]]) -> None:
    """Raise PartitionError where the facts of a rank are not those of rank 0."""
    for rank, of_rank in enumerate(of_ranks):
        for name in [*of_ranks[0], *(key for key in of_rank if key not in of_ranks[0])]:
            expected, found = of_ranks[0].get(name), of_rank.get(name)
            if expected != found:
                raise PartitionError(
                    f"rank {rank} has {name} {_short(found)}, rank 0 has {_short(expected)}; start every rank with the "
                    "same experiment, arguments and versions"
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    yield connect(process, store, search, candidate, num_train)
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
