"""A candidate: one way to train the experiment, with its layout, its predicted bytes and seconds, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """What the bytes of a device consist of at the instant of its peak; the parts sum to the peak."""

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
    replica_index: int
    first_layer: int
    last_layer: int
    """Inclusive index of an affine layer."""
    limit_bytes: int
    """What the device has."""
    memory: StageMemory


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
    """Of each device used, in stage order."""


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
    recompute: bool
    sharding: str | None
    learning_rate: float
    cost_source: str
    stages: tuple[StagePlan, ...]
    """Empty where no layout exists at all."""
    predicted: Prediction | None
    """None where no layout exists at all."""

    @property
    def overflow_bytes(self) -> float:
        """By how much the fullest device is too small, negative where all have room; infinite without a layout."""
        return max((stage.memory.peak_bytes - stage.limit_bytes for stage in self.stages), default=float("inf"))
