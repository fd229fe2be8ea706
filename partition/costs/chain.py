"""The costs of a chain given as a table: the same questions as a network's costs, answered for one microbatch size.

A table knows what each layer takes, sends and keeps, not what happens inside it; `chain_memory.py` says what a stage
holds. The optimizer step takes no time: a table has no column for it. The output of the last layer goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from os.path import basename

from partition.costs.chain_memory import ChainBytes, ChainStageMemory
from partition.costs.hardware import Cluster, Device
from partition.costs.memory import Effect, memory_effect
from partition.costs.source import MicrobatchCost
from partition.costs.table import Chain, LayerCost
from partition.errors import PartitionError
from partition.graph import Category, Spans

MOST_TIMES_SLOWER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TableCost:
    """One action of a stage: its seconds on the device that was measured, and its bytes."""

    measured_s: float
    memory: Effect
    slowdown: Callable[[Device], float]

    def seconds(self, device: Device) -> float:
        """Seconds on a device."""
        return self.measured_s * self.slowdown(device)


class ChainCosts:
    """Stage costs of a chain for microbatches of one size.

    Seconds are those of the table on the first device; on another one they are scaled by the two devices' `compute`
    where both are known.
    """

    def __init__(self, chain: Chain, microbatch_rows: int, measured_on: Device) -> None:
        self.chain = chain
        self.microbatch_rows: int | None = microbatch_rows
        self.measured_on = measured_on
        self._sums = {name: (0.0, *accumulate(values)) for name, values in _seconds_by_action(chain.layers).items()}
        self.sums = ChainBytes(chain.layers)
        self._stages: dict[tuple[int, int], ChainStageCost] = {}

    @property
    def num_layers(self) -> int:
        """Rows of the table."""
        return len(self.chain.layers)

    @property
    def splits_backward(self) -> bool:
        """Whether the table gives the two halves of the backward."""
        return self.chain.splits_backward

    @property
    def can_recompute(self) -> bool:
        """Not: a table does not say what an operator alone keeps."""
        return False

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> ChainStageCost:
        """The costs of rows first_layer..last_layer, inclusive, as one stage, which recomputes nothing."""
        assert not recompute, "a table has no costs of recomputation"
        key = (first_layer, last_layer)
        if key not in self._stages:
            self._stages[key] = ChainStageCost(self, first_layer, last_layer)
        return self._stages[key]

    def seconds(self, action: str, first_layer: int, last_layer: int) -> float:
        """Seconds of an action of a stage, as measured."""
        sums = self._sums[action]
        return sums[last_layer + 1] - sums[first_layer]

    def running_sums(self, action: str) -> tuple[float, ...]:
        """Seconds of an action, as measured, of the rows before every row, and of all."""
        return self._sums[action]

    def slowdown(self, device: Device) -> float:
        """How many times the measured seconds a device takes."""
        return relative_seconds(self.measured_on, device)

    def least_s(self, num_examples: int, devices: Sequence[Device]) -> float:
        """Seconds of all layers of so many microbatches, shared out over all devices by their speeds."""
        assert self.microbatch_rows is not None
        whole_s = self.seconds("forward", 0, self.num_layers - 1) + self.seconds("backward", 0, self.num_layers - 1)
        return num_examples / self.microbatch_rows * whole_s / sum(1 / self.slowdown(device) for device in devices)

    def origin(self, cluster: Cluster) -> str:
        """The table, and the links."""
        assumed = ", assumed links" if cluster.links.is_default and len(cluster.devices) > 1 else ""
        return f"the table {basename(self.chain.source)}{assumed}"


class ChainStageCost:
    """The costs of rows first_layer..last_layer of a table as one stage."""

    def __init__(self, costs: ChainCosts, first_layer: int, last_layer: int) -> None:
        self.costs = costs
        self.first_layer = first_layer
        self.last_layer = last_layer

    @cached_property
    def layers(self) -> tuple[LayerCost, ...]:
        """The rows."""
        return self.costs.chain.layers[self.first_layer : self.last_layer + 1]

    @property
    def has_recomputation(self) -> bool:
        """Never."""
        return False

    @property
    def shared_bytes(self) -> int:
        """Nothing: a table knows only of layers."""
        return 0

    @cached_property
    def tensor_bytes(self) -> tuple[int, ...]:
        """Of each layer's parameters."""
        return tuple(layer.parameter_bytes for layer in self.layers)

    def static_bytes(self, num_microbatches: int) -> dict[Category, int]:
        """Parameters, as many bytes of gradients, the optimizer's state."""
        del num_microbatches
        held = self.costs.sums
        parameters_bytes = held.of_stage(held.parameters, self.first_layer, self.last_layer)
        return {
            Category.PARAMETERS: parameters_bytes,
            Category.GRADIENTS: parameters_bytes,
            Category.OPTIMIZER: held.of_stage(held.optimizer, self.first_layer, self.last_layer),
        }

    @cached_property
    def step(self) -> TableCost:
        """The optimizer step, which a table says nothing of."""
        return TableCost(measured_s=0.0, memory=memory_effect((), 0), slowdown=self.costs.slowdown)

    def microbatch(self, rows: int) -> MicrobatchCost:
        """The costs of every action on a microbatch. Raises PartitionError for any size but the table's own."""
        own = self.costs.microbatch_rows
        if rows != own:
            raise PartitionError(
                f"{self.costs.chain.source}: holds the costs of microbatches of {own} examples, not of {rows}; measure "
                "those, or take microbatches of that size"
            )
        return self._microbatch

    @cached_property
    def _microbatch(self) -> MicrobatchCost:
        memory = ChainStageMemory(self.costs.sums, self.first_layer, self.last_layer)
        return MicrobatchCost(
            rows=self.costs.microbatch_rows or 0,
            forward=self._action("forward", memory.forward),
            backward=self._action("backward", memory.backward),
            input_grad=self._action("input_grad", memory.input_grad),
            weight_grad=self._action("weight_grad", memory.weight_grad),
            recompute=self._action(None, memory_effect((), 0)),
            receive_forward=self._action(None, memory.received(memory.input_bytes)),
            receive_backward=self._action(None, memory.received(memory.sent_bytes)),
            output_bytes=memory.sent_bytes,
            grad_input_bytes=memory.input_bytes,
            is_output_kept=False,
        )

    def _action(self, name: str | None, memory: Effect) -> TableCost:
        measured_s = self.costs.seconds(name, self.first_layer, self.last_layer) if name else 0.0
        return TableCost(measured_s=measured_s, memory=memory, slowdown=self.costs.slowdown)


def relative_seconds(measured_on: Device, device: Device) -> float:
    """Seconds on a device over those on the one that was measured: 1 unless `compute` of both is known.

    Raises PartitionError for devices that no one table can be the costs of.
    """
    if not (measured_on.is_compute_known and device.is_compute_known):
        return 1.0
    ratio = measured_on.flop_per_s / device.flop_per_s
    if not 1 / MOST_TIMES_SLOWER <= ratio <= MOST_TIMES_SLOWER:
        raise PartitionError(
            f"cluster.devices: {device.name} has {device.flop_per_s:.3g} FLOP/s, {measured_on.name} "
            f"{measured_on.flop_per_s:.3g}: seconds are scaled by at most {MOST_TIMES_SLOWER:,}; check `compute`"
        )
    return ratio


def _seconds_by_action(layers: Sequence[LayerCost]) -> dict[str, list[float]]:
    """Where a table does not split the backward, all of it counts as I: no schedule may then defer W."""
    return {
        "forward": [layer.forward_s for layer in layers],
        "backward": [layer.backward_s for layer in layers],
        "input_grad": [layer.backward_s if layer.input_grad_s is None else layer.input_grad_s for layer in layers],
        "weight_grad": [layer.weight_grad_s or 0.0 for layer in layers],
    }
