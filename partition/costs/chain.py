"""The costs of a chain given as a table: the same questions as a network's costs, answered for one microbatch size.

A table knows what each layer takes, sends and keeps, not what happens inside it. What a stage holds follows from that:

    F    layer by layer: what it keeps and its output beside its input, which counts as part of what it keeps as far as
         it keeps that much; then the stage holds what its layers keep, and its output until that is sent
    B    from the last layer: the gradient of its input beside that of its output and what it keeps
    I    the same, but nothing is given back: W needs what was kept, and the gradient of every layer's output
    W    gives all of that back

The optimizer step takes no time: a table has no column for it. The output of the last layer goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from os.path import basename

from partition.costs.hardware import Cluster, Device
from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect
from partition.costs.source import MicrobatchCost
from partition.costs.table import Chain, LayerCost
from partition.errors import PartitionError
from partition.graph import Category, Spans

MOST_TIMES_SLOWER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TableCost:
    """One action of a stage: its seconds on the device that was measured, and its bytes."""

    measured_s: float
    memory: MemoryEffect
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
        parameters_bytes = sum(self.tensor_bytes)
        return {
            Category.PARAMETERS: parameters_bytes,
            Category.GRADIENTS: parameters_bytes,
            Category.OPTIMIZER: self._optimizer_bytes,
        }

    @cached_property
    def _optimizer_bytes(self) -> int:
        return sum(layer.optimizer_bytes for layer in self.layers)

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
        return MicrobatchCost(
            rows=self.costs.microbatch_rows or 0,
            forward=self._action("forward", self._forward_steps()),
            backward=self._action("backward", self._backward_steps(gives_back=True)),
            input_grad=self._action("input_grad", self._backward_steps(gives_back=False)),
            weight_grad=self._action("weight_grad", self._weight_grad_steps()),
            recompute=self._action(None, []),
            receive_forward=self._action(None, [_step(self._input_bytes, Category.BOUNDARY)]),
            receive_backward=self._action(None, [_step(self._sent_bytes, Category.BOUNDARY)]),
            output_bytes=self._sent_bytes,
            grad_input_bytes=self._input_bytes,
            is_output_kept=False,
        )

    def _action(self, name: str | None, steps: Sequence[MemoryStep]) -> TableCost:
        measured_s = self.costs.seconds(name, self.first_layer, self.last_layer) if name else 0.0
        return TableCost(measured_s=measured_s, memory=memory_effect(steps, 0), slowdown=self.costs.slowdown)

    @property
    def _input_bytes(self) -> int:
        """What the stage receives; 0 for the first one, whose examples are in no row."""
        return self.costs.chain.layers[self.first_layer - 1].activation_bytes if self.first_layer else 0

    @property
    def _is_last(self) -> bool:
        return self.last_layer == self.costs.num_layers - 1

    @property
    def _sent_bytes(self) -> int:
        return 0 if self._is_last else self.layers[-1].activation_bytes

    def _boundary(self, position: int) -> tuple[int, Category]:
        """Bytes between the layers at position - 1 and position of the stage, and what they are for."""
        if position == 0:
            return self._input_bytes, Category.BOUNDARY
        is_sent = position == len(self.layers) and not self._is_last
        return self.layers[position - 1].activation_bytes, Category.BOUNDARY if is_sent else Category.ACTIVATIONS

    def _forward_steps(self) -> list[MemoryStep]:
        return [step for position in range(len(self.layers)) for step in self._layer_forward(position)]

    def _layer_forward(self, position: int) -> Iterator[MemoryStep]:
        (input_bytes, of_input), (output_bytes, of_output) = self._boundary(position), self._boundary(position + 1)
        kept_bytes = _saved(self.layers[position])
        alive_bytes = max(kept_bytes, input_bytes)
        yield _step(-input_bytes, of_input)
        yield _step(alive_bytes, Category.ACTIVATIONS)
        yield _step(output_bytes, of_output)
        yield _step(kept_bytes - alive_bytes, Category.ACTIVATIONS)
        if self._is_last and position == len(self.layers) - 1:
            yield _step(-output_bytes, of_output)

    def _backward_steps(self, *, gives_back: bool) -> list[MemoryStep]:
        """Of B, or of I, which gives nothing back."""
        count = len(self.layers)
        # The gradient of the last layer's output is received from nowhere.
        steps = [_step(*self._boundary(count))] if self._is_last else []
        for position in reversed(range(count)):
            steps.append(_step(*self._boundary(position)))
            if gives_back:
                steps += self._given_back(position)
        return steps

    def _weight_grad_steps(self) -> list[MemoryStep]:
        return [step for position in reversed(range(len(self.layers))) for step in self._given_back(position)]

    def _given_back(self, position: int) -> list[MemoryStep]:
        """What a layer keeps, and the gradient of its output."""
        output_bytes, of_output = self._boundary(position + 1)
        kept_bytes = _saved(self.layers[position])
        return [_step(-kept_bytes, Category.ACTIVATIONS), _step(-output_bytes, of_output)]


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


def _saved(layer: LayerCost) -> int:
    return layer.saved_bytes or 0


def _step(num_bytes: int, category: Category) -> MemoryStep:
    return MemoryStep(0, num_bytes, category)
