"""What the planner asks of costs, wherever they come from: a network's layers, or the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from partition.costs.allocator import EXACT, AllocatorRules
from partition.costs.hardware import Cluster, Device
from partition.costs.memory import Effect
from partition.graph import Category, Spans


class ActionCost(Protocol):
    """One action of a stage."""

    @property
    def memory(self) -> Effect:
        """Bytes taken and given."""
        ...

    def seconds(self, device: Device) -> float:
        """Seconds on a device."""
        ...


@dataclass(frozen=True, kw_only=True)
class MicrobatchCost:
    """Every action of a stage on a microbatch of `rows` examples."""

    rows: int
    forward: ActionCost
    backward: ActionCost
    input_grad: ActionCost
    weight_grad: ActionCost
    recompute: ActionCost
    """R; nothing where the stage has none."""
    receive_forward: ActionCost
    receive_backward: ActionCost
    output_bytes: int
    """What SEND_F carries; 0 on the last stage."""
    grad_input_bytes: int
    """What SEND_B carries; 0 on the first stage."""
    is_output_kept: bool
    """The sent output is a kept tensor: the send gives nothing back."""
    rules: AllocatorRules = EXACT

    @property
    def output_buffer_bytes(self) -> int:
        """What the buffer takes from which SEND_F sends."""
        return self.rules.block_bytes(self.output_bytes)

    @property
    def grad_input_buffer_bytes(self) -> int:
        """What the buffer takes from which SEND_B sends."""
        return self.rules.block_bytes(self.grad_input_bytes)


class StageCost(Protocol):
    """Contiguous layers as one stage."""

    def __hash__(self) -> int: ...

    @property
    def tensor_bytes(self) -> Sequence[int]:
        """Of each parameter: what a sum of gradients over replicas adds up."""
        ...

    @property
    def shared_bytes(self) -> int:
        """Of the static bytes, those that are the rank's, whichever stages it has."""
        ...

    @property
    def has_recomputation(self) -> bool:
        """Whether R runs before its backwards."""
        ...

    @property
    def step(self) -> ActionCost:
        """The optimizer step."""
        ...

    def static_bytes(self, num_microbatches: int) -> Mapping[Category, int]:
        """Bytes that live as long as the stage, for steps of at most `num_microbatches` microbatches."""
        ...

    def microbatch(self, rows: int) -> MicrobatchCost:
        """The costs of every action on a microbatch of `rows` examples."""
        ...


class StageSource(Protocol):
    """The costs of any run of layers of a chain."""

    @property
    def num_layers(self) -> int:
        """Layers, between any two of which a cut may be."""
        ...

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> StageCost:
        """The costs of layers first_layer..last_layer, inclusive, as one stage that recomputes some of them."""
        ...


class CostSource(StageSource, Protocol):
    """The costs of a chain of layers."""

    @property
    def microbatch_rows(self) -> int | None:
        """The one size of a microbatch that there are costs for; None: any."""
        ...

    @property
    def splits_backward(self) -> bool:
        """Whether I and W have costs of their own."""
        ...

    @property
    def can_recompute(self) -> bool:
        """Whether there are costs of recomputation."""
        ...

    def least_s(self, num_examples: int, devices: Sequence[Device]) -> float:
        """Seconds that no step of so many examples on these devices together can be below."""
        ...

    def origin(self, cluster: Cluster) -> str:
        """Where the costs on a cluster come from, in words."""
        ...
