"""A candidate: one way to train the experiment, with its layout, its predicted bytes and seconds, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from partition.costs.allocator import DeviceRoom, cuda_reserved_bytes
from partition.graph import Spans
from partition.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """What the bytes of a stage consist of at the instant of its device's peak; the parts sum to `peak_bytes`.

    Those of all stages of a device sum to the device's peak.
    """

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    boundary_bytes: int
    workspace_bytes: int
    data_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Contiguous layers on one device."""

    stage_index: int
    device: str
    device_index: int
    rank: int
    """Of the process: replica_index times the ranks of a replica, plus the position of its device among them."""
    replica_index: int
    first_layer: int
    last_layer: int
    """Inclusive index of an affine layer."""
    limit_bytes: int
    """What may be allocated on the device."""
    memory: StageMemory
    room: DeviceRoom | None = None
    """Of a GPU: where the rest of its memory goes."""
    recompute: Spans = ()
    """First and last layer of every run of layers of which F keeps nothing: computed again for the backward."""

    @property
    def layers(self) -> tuple[int, int, Spans]:
        """What costs are asked of."""
        return self.first_layer, self.last_layer, self.recompute


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a step of a candidate is predicted to take."""

    step_s: float
    samples_per_s: float
    relative_progress_s: float | None
    """Seconds of a step times (1 + B_noise / minibatch size): None while the noise has not been measured."""
    device_seconds_per_sample: float
    bubble_fraction: float
    """Idle device seconds over all device seconds between start and end of the step."""
    communication_bytes: int
    """Bytes that cross links in a step."""
    peak_bytes: tuple[int, ...]
    """Allocated, of each device used, in order of ranks."""
    reserved_bytes: tuple[int, ...] = ()
    """What the devices' allocators hold for that: on CUDA whole segments, elsewhere the same."""
    context_bytes: tuple[int, ...] = ()
    """What the drivers take besides: 0 but on CUDA."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to train, feasible or not."""

    name: str
    strategy: str
    feasible: bool
    reason: str
    """Why not, in numbers; what limits it, where feasible."""
    exact_gradient: bool
    """The gradient of the whole minibatch, whatever the layout."""
    bit_identical: bool
    """Same bits as one device that accumulates the same microbatches."""
    num_devices: int
    num_stages: int
    num_replicas: int
    minibatch_size: int
    microbatch_size: int
    """The largest of its microbatches."""
    num_microbatches: int
    schedule: str
    recompute: Spans
    """First and last layer of every run of layers, each in one stage, that is computed again; empty: none."""
    sharding: str | None
    learning_rate: float
    learning_rate_rule: str
    """How it was adapted to a smaller minibatch: linear, sqrt, noise or constant; `given` for the experiment's own."""
    cost_source: str
    stages: tuple[StagePlan, ...]
    """Empty where no layout exists at all."""
    predicted: Prediction | None
    """None where no layout exists at all."""

    @property
    def overflow_bytes(self) -> float:
        """By how much the fullest device is too small, negative where all have room; infinite without a layout."""
        return overflow_bytes(self.stages)

    @property
    def rank_devices(self) -> tuple[str, ...]:
        """The devices of the first replica, by rank."""
        return tuple(device for _, device, _ in self._placed)

    @property
    def has_own_order(self) -> bool:
        """Whether its ranks are on devices in another order than that of the experiment."""
        indices = [index for _, _, index in self._placed]
        return indices != sorted(indices)

    @property
    def _placed(self) -> list[tuple[int, str, int]]:
        return sorted({(of.rank, of.device, of.device_index) for of in self.stages if of.replica_index == 0})

    @property
    def ranks_per_replica(self) -> int:
        """Devices of one replica."""
        return self.num_devices // self.num_replicas


@dataclass(frozen=True, kw_only=True)
class RankLoad:
    """What one device has to hold."""

    device: str
    peak_bytes: int
    limit_bytes: int
    stages: tuple[StagePlan, ...]

    @property
    def available(self) -> str:
        """What the device has for it, in words."""
        room, limit = self.stages[0].room, format_bytes(self.limit_bytes)
        if room is None:
            return f"{self.device} has {limit}"
        return f"{self.device} has {limit} to allocate of {format_bytes(room.reported_bytes)}"

    @property
    def stated_bytes(self) -> int:
        """The memory of the device as the experiment states it."""
        room = self.stages[0].room
        return self.limit_bytes if room is None else room.reported_bytes

    @property
    def enough_bytes(self) -> int:
        """What would have to be stated, for the peak to fit."""
        room = self.stages[0].room
        return self.peak_bytes if room is None else room.enough_bytes(self.peak_bytes)

    @property
    def reserved_bytes(self) -> int:
        """What the allocator holds for the peak, gaps between blocks apart."""
        return self.peak_bytes if self.stages[0].room is None else cuda_reserved_bytes(self.peak_bytes)

    @property
    def context_bytes(self) -> int:
        """What the driver takes besides."""
        room = self.stages[0].room
        return 0 if room is None else room.context_bytes


def rank_loads(stages: Sequence[StagePlan]) -> list[RankLoad]:
    """The load of every rank, in order."""
    of_rank: dict[int, list[StagePlan]] = {}
    for stage in stages:
        of_rank.setdefault(stage.rank, []).append(stage)
    return [
        RankLoad(
            device=of[0].device,
            peak_bytes=sum(stage.memory.peak_bytes for stage in of),
            limit_bytes=of[0].limit_bytes,
            stages=tuple(of),
        )
        for _, of in sorted(of_rank.items())
    ]


def overflow_bytes(stages: Sequence[StagePlan]) -> float:
    """By how much the fullest device is too small, negative where all have room; infinite without stages."""
    return max((load.peak_bytes - load.limit_bytes for load in rank_loads(stages)), default=float("inf"))


def by_step(candidate: Candidate) -> tuple[bool, float]:
    """What fits first, by its step."""
    assert candidate.predicted is not None, "a candidate with a layout is priced"
    return not candidate.feasible, candidate.predicted.step_s
