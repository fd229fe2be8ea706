"""The costs of a stage: bytes to the byte and kernels of each of its actions, for any microbatch size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from partition.costs.hardware import Device
from partition.costs.memory import MemoryEffect, memory_effect
from partition.costs.optimizer import OptimizerRecord
from partition.costs.work import Work, program_work, seconds_on
from partition.graph import Category, Network, Program, StageProgram, build_stage_program
from partition.graph.program import Give, Take, Variable


@dataclass(frozen=True, kw_only=True)
class ActionCost:
    """One action on one microbatch size."""

    memory: MemoryEffect
    kernels: tuple[Work, ...]
    _seconds: dict[tuple[float, float], float] = field(default_factory=dict, repr=False, compare=False)

    def seconds(self, device: Device) -> float:
        """Seconds on a device; summed once for each kind of device."""
        rates = (device.flop_per_s, device.memory_bytes_per_s)
        if rates not in self._seconds:
            self._seconds[rates] = seconds_on(device, self.kernels)
        return self._seconds[rates]


@dataclass(frozen=True, kw_only=True)
class MicrobatchCost:
    """Every action of a stage on a microbatch of `rows` examples."""

    rows: int
    forward: ActionCost
    backward: ActionCost
    input_grad: ActionCost
    weight_grad: ActionCost
    receive_forward: MemoryEffect
    receive_backward: MemoryEffect
    output_bytes: int
    """What SEND_F carries; 0 on the last stage."""
    grad_input_bytes: int
    """What SEND_B carries; 0 on the first stage."""
    is_output_kept: bool
    """The sent output is a kept tensor: the send gives nothing back."""


class StageCost:
    """The costs of the layers first_layer..last_layer of a network as one stage."""

    def __init__(
        self, network: Network, optimizer: OptimizerRecord, itemsize: int, first_layer: int, last_layer: int
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.itemsize = itemsize
        self.program: StageProgram = build_stage_program(network, first_layer, last_layer)
        self._microbatches: dict[int, MicrobatchCost] = {}

    @cached_property
    def parameter_elements(self) -> int:
        """Elements of all parameters of the stage."""
        return sum(layer.parameter_elements for layer in self.program.layers)

    @cached_property
    def parameter_tensors(self) -> int:
        """One per weight and per bias."""
        return sum(1 + layer.has_bias for layer in self.program.layers)

    def static_bytes(self, num_microbatches: int) -> dict[Category, int]:
        """Bytes that live as long as the stage, for steps of at most `num_microbatches` microbatches."""
        parameters = self.parameter_elements * self.itemsize
        state = self.optimizer.state_bytes(self.parameter_elements, self.parameter_tensors, self.itemsize)
        # The 1 that a backward starts from; the last stage keeps the loss of every microbatch of a step beside it.
        numbers = 1 + (num_microbatches if self.program.is_last else 0)
        return {
            Category.PARAMETERS: parameters,
            Category.GRADIENTS: parameters,
            Category.OPTIMIZER: state,
            Category.WORKSPACE: numbers * self.itemsize,
        }

    def microbatch(self, rows: int) -> MicrobatchCost:
        """The costs of every action on a microbatch of `rows` examples."""
        if rows not in self._microbatches:
            self._microbatches[rows] = self._microbatch(rows)
        return self._microbatches[rows]

    def _microbatch(self, rows: int) -> MicrobatchCost:
        program = self.program
        sent_forward = None if program.is_last else program.output
        received_forward = None if program.is_first else program.input
        return MicrobatchCost(
            rows=rows,
            forward=self._action(program.forward, rows),
            backward=self._action(program.backward, rows),
            input_grad=self._action(program.input_grad, rows),
            weight_grad=self._action(program.weight_grad, rows),
            receive_forward=self._receive(received_forward, rows),
            receive_backward=self._receive(program.grad_output, rows),
            output_bytes=self._bytes(sent_forward, rows),
            grad_input_bytes=self._bytes(program.grad_input, rows),
            is_output_kept=program.is_output_kept,
        )

    def _action(self, program: Program, rows: int) -> ActionCost:
        return ActionCost(
            memory=memory_effect(program, rows, self.itemsize),
            kernels=program_work(program, rows, self.itemsize, self.network.loss),
        )

    def _receive(self, variable: Variable | None, rows: int) -> MemoryEffect:
        return memory_effect((Take(variable),) if variable else (), rows, self.itemsize)

    def _bytes(self, variable: Variable | None, rows: int) -> int:
        return variable.num_bytes(rows, self.itemsize) if variable else 0

    @cached_property
    def step(self) -> ActionCost:
        """The optimizer step: the norms of the gradients, the penalty where there is one, the update."""
        norms = Variable("norms", Category.WORKSPACE, has_rows=False, columns=self.num_norms)
        effect = memory_effect((Take(norms), Give(norms)), 1, self.itemsize)
        workspace = self.optimizer.workspace_bytes
        if workspace > effect.peak_bytes:
            peak = {Category.WORKSPACE: workspace}
            effect = MemoryEffect(net_bytes=0, peak_bytes=workspace, net_by_category={}, peak_by_category=peak)
        return ActionCost(memory=effect, kernels=(self._norm_work(), self._update_work()))

    @cached_property
    def num_norms(self) -> int:
        """Numbers that the step reads back: a norm for each row of a gradient, and of a weight that is penalised."""
        return sum(
            layer.out_features * (2 if self.network.l2_penalty else 1) + layer.has_bias for layer in self.program.layers
        )

    def _norm_work(self) -> Work:
        weights = sum(layer.weight_elements for layer in self.program.layers) if self.network.l2_penalty else 0
        elements = self.parameter_elements + weights
        return Work(2 * elements, elements * self.itemsize)

    def _update_work(self) -> Work:
        # The gradient is read; the parameter and every state copy are read and written.
        passes = 3 + 2 * self.optimizer.state_copies
        return Work(
            self.optimizer.flop_per_element * self.parameter_elements,
            passes * self.parameter_elements * self.itemsize,
        )


class CostModel:
    """Stage costs of a network, each computed once; stages of equal layers share theirs."""

    def __init__(self, network: Network, optimizer: OptimizerRecord, itemsize: int) -> None:
        self.network = network
        self.optimizer = optimizer
        self.itemsize = itemsize
        self._shapes = tuple(
            (layer.in_features, layer.out_features, layer.has_bias, layer.activation.name) for layer in network.layers
        )
        self._stages: dict[object, StageCost] = {}

    def stage(self, first_layer: int, last_layer: int) -> StageCost:
        """The costs of layers first_layer..last_layer, inclusive, as one stage."""
        is_last = last_layer == self.network.num_layers - 1
        key = (first_layer == 0, is_last, self._shapes[first_layer : last_layer + 1])
        if key not in self._stages:
            self._stages[key] = StageCost(self.network, self.optimizer, self.itemsize, first_layer, last_layer)
        return self._stages[key]
