"""One process for each rank, joined by torch.distributed: gloo between CPUs, NCCL between GPUs.

Messages between CPUs of one host are read from the sender's memory (`partition.runtime.peer_memory`). All others have a
communicator for each direction, down to higher ranks and up to lower ones, so that no send queues behind a receive of
the same pair and the order within one direction is the schedule's on both sides. A receive is posted as early as the
row says and waited for when its tensor is needed; a send is waited for when its buffer is. Numbers of a few bytes
(losses, norms, stop requests) go through a group of their own, on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from partition.costs import Device
from partition.runtime.channel import Channels, Delivery, MessageKey
from partition.runtime.peer_memory import PeerMemory
from partition.runtime.peer_opening import open_peer_memory
from partition.runtime.peer_sums import PeerAdder
from partition.runtime.process import Process
from partition.runtime.transport import Description, GroupDelivery, GroupTransport, Transport, broken_as
from partition.runtime.world import Numbers, Shared

BeginSum = Callable[[Sequence[Tensor], Description], Delivery]
"""Begins to add up tensors that several ranks have, in place; they stay untouched until it is complete."""


class ProcessWorld:
    """The rank of this process among those of all others."""

    is_shared = True

    def __init__(
        self, process: Process, *, num_replicas: int, is_cuda: bool, timeout_s: float, gpu: int | None = None
    ) -> None:
        self.process = process
        self._gpu = process.local_rank if gpu is None else gpu
        self.num_replicas = num_replicas
        self.ranks_per_replica = process.world_size // num_replicas
        self.ranks: Sequence[int] = (process.rank,)
        self._is_cuda = is_cuda
        self._timeout = timedelta(seconds=timeout_s)
        self._memory: PeerMemory | None = None
        self._connect()

    def _connect(self) -> None:
        """Make all groups, in the same order on every rank."""
        grid = torch.arange(self.process.world_size).reshape(self.num_replicas, self.ranks_per_replica)
        backend = "nccl" if self._is_cuda else "gloo"
        with broken_as(lambda: "the other ranks to connect"):
            self._control = self._group(range(self.process.world_size), "gloo")
            rows = [(self._group(row, backend), self._group(row, backend)) for row in grid.tolist()]
            columns = [self._group(column, backend) for column in grid.T.tolist()]
            self.down, self.up = rows[self._replica]
            mesh_groups = [columns[self._position], self.down]
            self.mesh = DeviceMesh.from_group(
                mesh_groups, "cuda" if self._is_cuda else "cpu", grid, mesh_dim_names=("replica", "position")
            )
            if not self._is_cuda:
                self._memory = open_peer_memory(
                    self.process.rank,
                    (range(self.process.world_size), self._row),
                    self._control,
                    self._timeout.total_seconds(),
                )
        near = self._memory.transports if self._memory else {}
        self.transports = {peer: near.get(peer) or self._group_transport(peer)
                           for peer in self._row if peer != self.process.rank}  # fmt: skip
        """To every other rank of this replica."""
        self._is_one_host = len(near) == self.process.world_size - 1
        column = [int(rank) for rank in grid.T[self._position]]
        self._sum_of_replicas = self.sum_over(column, self.mesh.get_group("replica"))
        self._warm_up()

    @property
    def reads_memory(self) -> bool:
        """Whether messages are copied from the memory of the process that sends them."""
        return self._memory is not None

    @property
    def way(self) -> str:
        """How messages between these ranks go, in words."""
        return "reading memory" if self.reads_memory else "nccl" if self._is_cuda else "gloo"

    def close(self) -> None:
        """Close the connections that are this world's own."""
        if self._memory:
            self._memory.close()

    def _group_transport(self, peer: int) -> Transport:
        if peer > self.process.rank:
            return GroupTransport(peer, self.down, self.up)
        return GroupTransport(peer, self.up, self.down)

    def _group(self, ranks: Sequence[int], backend: str) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(list(ranks), timeout=self._timeout, backend=backend)
        return group

    @property
    def message_device(self) -> torch.device:
        """Where tensors are that the communicators take."""
        return torch.device("cuda", self._gpu) if self._is_cuda else torch.device("cpu")

    def _warm_up(self) -> None:
        """A first message over every pair of ranks and a first sum: what connects lazily connects now."""
        number = torch.zeros(1, device=self.message_device)
        for source in self._row:
            for destination in self._row:
                if source != destination and self.process.rank in (source, destination):
                    self._first_message(number, source, destination)
        if self.num_replicas > 1:
            dist.all_reduce(number, group=self.mesh.get_group("replica"))

    def _first_message(self, number: Tensor, source: int, destination: int) -> None:
        def waiting_for() -> str:
            return f"rank {source} and rank {destination} to connect"

        if self.process.rank == source:
            self.transports[destination].send(number, waiting_for).wait()
        else:
            self.transports[source].receive(number, waiting_for).wait()

    @property
    def _replica(self) -> int:
        return self.process.rank // self.ranks_per_replica

    @property
    def _position(self) -> int:
        return self.process.rank % self.ranks_per_replica

    @property
    def _row(self) -> range:
        """The ranks of this replica."""
        first = self._replica * self.ranks_per_replica
        return range(first, first + self.ranks_per_replica)

    def torch_device(self, spec: Device) -> torch.device:
        """The GPU of this process's place on its host, or the CPU."""
        return self.message_device if spec.kind == "cuda" else torch.device("cpu")

    def channels(self, replica: int, placement: tuple[int, ...], transfer_s: Callable[[MessageKey], float]) -> Channels:
        """Messages between the ranks of this replica; what the seconds of a link are predicted to be plays no part."""
        del replica, transfer_s
        return ProcessChannels(self, [self._row[position] for position in placement])

    def sum_gradients(
        self, rank: int, stage: int, gradients: Sequence[Tensor], now_s: float, seconds: float
    ) -> Delivery:
        """Begin to add a stage's gradients over replicas, in place."""
        del rank, now_s, seconds
        return self._sum_of_replicas(gradients, lambda: f"the gradients of stage {stage} from the other replicas")

    def sum_over(self, ranks: Sequence[int], group: dist.ProcessGroup) -> BeginSum:
        """What begins to add up tensors of some ranks, in place; `group` has just these ranks."""
        if self._is_one_host and self._memory and len(ranks) > 1:
            return PeerAdder(self._memory, self.process.rank, ranks).begin

        def begin(tensors: Sequence[Tensor], waiting_for: Description) -> Delivery:
            with broken_as(waiting_for):
                works = [dist.all_reduce(tensor, group=group, async_op=True) for tensor in tensors]
            return GroupDelivery(works, waiting_for)

        return begin

    def share(self, rank: int, values: Numbers, now_s: float) -> Shared:
        """Give this rank's numbers to all: every rank fills its own row, and the rows of all are added."""
        del rank, now_s
        rows = np.zeros((self.process.world_size, len(values)))
        rows[self.process.rank] = values
        if self._is_one_host and self._memory:
            return MemoryShare(self.process.rank, self._memory.transports, rows)
        # Not all_gather, for which gloo takes two buffers from the allocator that no ledger knows of; x + 0 is exact.
        with broken_as(_numbers):
            work = dist.all_reduce(torch.from_numpy(rows), group=self._control, async_op=True)
        return GroupShare([work], rows)


def _numbers() -> str:
    return "the numbers of the other ranks"


class GroupShare(GroupDelivery):
    """Numbers of all ranks under way, by torch.distributed."""

    def __init__(self, works: Sequence[Any], rows: Numbers) -> None:
        super().__init__(works, _numbers)
        self.values = list(rows)
        """By rank."""


class MemoryShare:
    """Numbers of all ranks under way, each rank's to each other one: where all are on one host."""

    work_s = 0.0

    def __init__(self, rank: int, transports: Mapping[int, Transport], rows: Numbers) -> None:
        tensors = torch.from_numpy(rows)
        self._under_way = [transport.receive(tensors[peer], _numbers) for peer, transport in transports.items()]
        self._under_way += [transport.send(tensors[rank], _numbers) for transport in transports.values()]
        self.values = list(rows)
        """By rank."""
        self.completed_s = 0.0

    def wait(self) -> bool:
        """Wait until every rank has given its numbers and taken this one's."""
        for delivery in self._under_way:
            delivery.wait()
            self.completed_s = max(self.completed_s, delivery.completed_s)
        return True


class ProcessChannels:
    """Messages between this process and the others of its replica."""

    def __init__(self, world: ProcessWorld, rank_of_stage: Sequence[int]) -> None:
        self._world = world
        self._rank_of_stage = rank_of_stage

    def send(self, key: MessageKey, tensor: Tensor, now_s: float) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""
        del now_s
        peer = self._rank_of_stage[key.destination_stage]
        return self._world.transports[peer].send(tensor, lambda: f"rank {peer} to take {key.send}")

    def receive(self, key: MessageKey, into: Tensor, now_s: float) -> Delivery:
        """Post a receive into a buffer that has the shape of the tensor sent."""
        del now_s
        peer = self._rank_of_stage[key.source_stage]
        return self._world.transports[peer].receive(into, lambda: f"{key.send} from rank {peer}")
