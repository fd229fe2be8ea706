"""What the ranks of a run do together besides passing messages along: sum gradients, share numbers.

    rank = replica * ranks_per_replica + position

           position 0   position 1   position 2
    replica 0    rank 0 ------> rank 1 ------> rank 2      messages along a row
                   |              |              |         sums down a column
    replica 1    rank 3 ------> rank 4 ------> rank 5

`LocalWorld` has all ranks in one process; `partition.runtime.processes` has one process for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.costs import Device
from partition.runtime.channel import Channels, Delivery, LocalChannels, MessageKey

Numbers = NDArray[np.float64]


class Shared(Delivery, Protocol):
    """Numbers of every rank, once all have given theirs."""

    @property
    def values(self) -> Sequence[Numbers]:
        """By rank; there once the delivery is complete."""


class World(Protocol):
    """All ranks of a run, of which some live in this process."""

    num_replicas: int
    ranks_per_replica: int
    ranks: Sequence[int]
    """Those in this process."""
    is_shared: bool
    """Other processes take part, so that seconds are the wall's whatever the devices are."""

    def torch_device(self, spec: Device) -> torch.device:
        """Where the tensors of a device live in this process."""

    def channels(self, replica: int, placement: tuple[int, ...], transfer_s: Callable[[MessageKey], float]) -> Channels:
        """Messages of one step between the ranks of a replica; `placement` gives the position of each stage."""

    def sum_gradients(
        self, rank: int, stage: int, gradients: Sequence[Tensor], now_s: float, seconds: float
    ) -> Delivery:
        """Begin to add a stage's gradients over replicas, in place; they stay untouched until it is complete."""

    def share(self, rank: int, values: Numbers, now_s: float) -> Shared:
        """Give this rank's numbers to all. Every rank calls it equally often, with as many numbers each time."""


@dataclass(kw_only=True)
class _Sum:
    """One stage's gradients of the replicas that have come so far, in place of each other's order."""

    gradients: dict[int, Sequence[Tensor]] = field(default_factory=dict)
    """By replica."""
    posted_s: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    completed_s: float = 0.0
    work_s: float = 0.0
    is_complete: bool = False

    def wait(self) -> bool:
        """Whether all replicas have come and the sum is in place."""
        return self.is_complete


@dataclass(kw_only=True)
class _Round:
    """One round of shared numbers."""

    num_ranks: int
    given: dict[int, Numbers] = field(default_factory=dict)
    completed_s: float = 0.0
    work_s: float = 0.0

    def wait(self) -> bool:
        """Whether every rank has given its numbers."""
        return len(self.given) == self.num_ranks

    @property
    def values(self) -> Sequence[Numbers]:
        """By rank."""
        return [self.given[rank] for rank in range(self.num_ranks)]


def share_all(world: World, numbers: Mapping[int, Numbers], now_s: float = 0.0) -> Sequence[Numbers]:
    """What every rank of the run gives, by rank, for what each rank of this process gives, by rank."""
    given = [world.share(rank, numbers[rank], now_s) for rank in world.ranks]
    is_complete = given[-1].wait()
    assert is_complete, "every rank shares equally often"
    return given[-1].values


def share_largest(world: World, mine: Sequence[float] | Numbers) -> Numbers:
    """The largest of what any process of the run has, number by number, known to all."""
    numbers = np.array(mine, dtype=np.float64)
    largest: Numbers = np.max(np.stack(list(share_all(world, dict.fromkeys(world.ranks, numbers)))), axis=0)
    return largest


class LocalWorld:
    """All ranks in this process. Sums run in replica order, so that they repeat bit for bit."""

    is_shared = False

    def __init__(self, num_replicas: int, ranks_per_replica: int) -> None:
        self.num_replicas = num_replicas
        self.ranks_per_replica = ranks_per_replica
        self.ranks: Sequence[int] = range(num_replicas * ranks_per_replica)
        self._sums: dict[int, _Sum] = {}
        self._lane_free_s: dict[int, float] = defaultdict(float)
        self._rounds: dict[int, _Round] = {}
        self._round_of: dict[int, int] = defaultdict(int)

    def torch_device(self, spec: Device) -> torch.device:
        """The device of its name, or the CPU for a simulated one."""
        return torch.device(spec.name if spec.kind == "cuda" else "cpu")

    def channels(self, replica: int, placement: tuple[int, ...], transfer_s: Callable[[MessageKey], float]) -> Channels:
        """Messages of one step between the ranks of a replica."""
        del replica
        return LocalChannels(placement, transfer_s)

    def sum_gradients(
        self, rank: int, stage: int, gradients: Sequence[Tensor], now_s: float, seconds: float
    ) -> Delivery:
        """Begin to add a stage's gradients over replicas, in place."""
        replica, position = divmod(rank, self.ranks_per_replica)
        one = self._sums.setdefault(stage, _Sum())
        one.gradients[replica], one.posted_s[replica] = gradients, now_s
        one.seconds = max(one.seconds, seconds)
        if len(one.gradients) == self.num_replicas:
            _add_up([one.gradients[index] for index in range(self.num_replicas)])
            start_s = max(*one.posted_s.values(), self._lane_free_s[position])
            one.completed_s = self._lane_free_s[position] = start_s + one.seconds
            one.is_complete = True
            one.gradients.clear()
            del self._sums[stage]
        return one

    def share(self, rank: int, values: Numbers, now_s: float) -> Shared:
        """Give this rank's numbers to all."""
        number = self._round_of[rank]
        self._round_of[rank] += 1
        this = self._rounds.setdefault(number, _Round(num_ranks=len(self.ranks)))
        this.given[rank] = values
        this.completed_s = max(this.completed_s, now_s)
        if this.wait():
            del self._rounds[number]
        return this


@torch.no_grad()
def _add_up(of_replicas: Sequence[Sequence[Tensor]]) -> None:
    """Replace the tensors of all replicas by their sum, without a further buffer."""
    first, *others = of_replicas
    for other in others:
        for total, addend in zip(first, other, strict=True):
            total.add_(addend.to(total.device))
    for other in others:
        for total, copy in zip(first, other, strict=True):
            copy.copy_(total)
