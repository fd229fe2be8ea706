"""The costs of a stage: bytes to the byte and kernels of each of its actions, for any microbatch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from partition.costs.hardware import Cluster, Device
from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect, memory_steps
from partition.costs.optimizer import OptimizerRecord
from partition.costs.source import MicrobatchCost
from partition.costs.work import Work, program_work, seconds_on
from partition.graph import Category, LossRecord, Network, Program, StageProgram, build_stage_program
from partition.graph.program import Take, Variable


class PricedProgram:
    """A program for any microbatch size."""

    def __init__(self, program: Program, itemsize: int, loss: LossRecord) -> None:
        self._program = program
        self._itemsize = itemsize
        self._loss = loss

    @cached_property
    def _steps(self) -> tuple[MemoryStep, ...]:
        return memory_steps(self._program, self._itemsize)

    def memory(self, rows: int) -> MemoryEffect:
        """Bytes taken and given on a microbatch of `rows` examples."""
        return memory_effect(self._steps, rows)

    def kernels(self, rows: int) -> tuple[Work, ...]:
        """Operations and bytes moved of every kernel, in order."""
        return program_work(self._program, rows, self._itemsize, self._loss)


class ProgramCost:
    """One program on one microbatch size; what is never asked for is never computed."""

    def __init__(self, program: PricedProgram, rows: int) -> None:
        self._program = program
        self._rows = rows
        self._seconds: dict[tuple[float, float], float] = {}

    @cached_property
    def memory(self) -> MemoryEffect:
        """Bytes taken and given."""
        return self._program.memory(self._rows)

    @cached_property
    def kernels(self) -> tuple[Work, ...]:
        """Operations and bytes moved of every kernel, in order."""
        return self._program.kernels(self._rows)

    def seconds(self, device: Device) -> float:
        """Seconds on a device; summed once for each kind of device."""
        rates = (device.flop_per_s, device.memory_bytes_per_s)
        if rates not in self._seconds:
            self._seconds[rates] = seconds_on(device, self.kernels)
        return self._seconds[rates]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The optimizer step of a stage."""

    memory: MemoryEffect
    kernels: tuple[Work, ...]

    def seconds(self, device: Device) -> float:
        """Seconds on a device."""
        return seconds_on(device, self.kernels)


class NetworkStageCost:
    """The costs of the layers first_layer..last_layer of a network as one stage."""

    def __init__(
        self, network: Network, optimizer: OptimizerRecord, itemsize: int, first_layer: int, last_layer: int
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.itemsize = itemsize
        self.layers = network.layers[first_layer : last_layer + 1]
        self.is_last = last_layer == network.num_layers - 1
        self._microbatches: dict[int, MicrobatchCost] = {}

    @cached_property
    def program(self) -> StageProgram:
        """The programs of the stage; its parameters and its optimizer step are priced without them."""
        return build_stage_program(self.network, self.layers[0].index, self.layers[-1].index)

    @cached_property
    def _actions(self) -> dict[str, PricedProgram]:
        program = self.program
        received = None if program.is_first else program.input
        return {
            "forward": self._priced(program.forward),
            "backward": self._priced(program.backward),
            "input_grad": self._priced(program.input_grad),
            "weight_grad": self._priced(program.weight_grad),
            "receive_forward": self._priced((Take(received),) if received else ()),
            "receive_backward": self._priced((Take(program.grad_output),) if program.grad_output else ()),
        }

    def _priced(self, program: Program) -> PricedProgram:
        return PricedProgram(program, self.itemsize, self.network.loss)

    @cached_property
    def parameter_elements(self) -> int:
        """Elements of all parameters of the stage."""
        return sum(layer.parameter_elements for layer in self.layers)

    @property
    def parameters_bytes(self) -> int:
        """Bytes of all parameters of the stage."""
        return self.parameter_elements * self.itemsize

    @cached_property
    def parameter_tensors(self) -> int:
        """One per weight and per bias."""
        return sum(1 + layer.has_bias for layer in self.layers)

    def static_bytes(self, num_microbatches: int) -> dict[Category, int]:
        """Bytes that live as long as the stage, for steps of at most `num_microbatches` microbatches."""
        parameters = self.parameters_bytes
        state = self.optimizer.state_bytes(self.parameter_elements, self.parameter_tensors, self.itemsize)
        # The 1 that a backward starts from; the last stage keeps the loss of every microbatch of a step beside it.
        numbers = 1 + (num_microbatches if self.is_last else 0)
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
        return MicrobatchCost(
            rows=rows,
            **{name: ProgramCost(action, rows) for name, action in self._actions.items()},
            output_bytes=self._bytes(None if program.is_last else program.output, rows),
            grad_input_bytes=self._bytes(program.grad_input, rows),
            is_output_kept=program.is_output_kept,
        )

    def flop(self, rows: int) -> int:
        """Operations of a forward and a backward of `rows` examples."""
        programs = (self._actions["forward"], self._actions["backward"])
        return sum(work.flop for program in programs for work in program.kernels(rows))

    def _bytes(self, variable: Variable | None, rows: int) -> int:
        return variable.num_bytes(rows, self.itemsize) if variable else 0

    @cached_property
    def step(self) -> StepCost:
        """The optimizer step: the norms of the gradients, the penalty where there is one, the update."""
        # The norms are read back before the update runs, so the two workspaces are never alive together.
        norms = MemoryStep(0, self.num_norms * self.itemsize, Category.WORKSPACE)
        update = MemoryStep(0, self.optimizer.workspace_bytes, Category.WORKSPACE)
        taken_and_given = [(one, one._replace(other_bytes=-one.other_bytes)) for one in (norms, update)]
        effect = memory_effect([step for pair in taken_and_given for step in pair], 1)
        return StepCost(memory=effect, kernels=(self._norm_work(), self._update_work()))

    @cached_property
    def num_norms(self) -> int:
        """Numbers that the step reads back: a norm for each row of a gradient, and of a weight that is penalised."""
        return sum(layer.out_features * (2 if self.network.l2_penalty else 1) + layer.has_bias for layer in self.layers)

    def _norm_work(self) -> Work:
        weights = sum(layer.weight_elements for layer in self.layers) if self.network.l2_penalty else 0
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

    microbatch_rows: int | None = None
    """Any number of examples can be priced."""
    splits_backward = True

    def __init__(self, network: Network, optimizer: OptimizerRecord, itemsize: int) -> None:
        self.network = network
        self.optimizer = optimizer
        self.itemsize = itemsize
        self._shapes = tuple(
            (layer.in_features, layer.out_features, layer.has_bias, layer.activation.name) for layer in network.layers
        )
        self._stages: dict[object, NetworkStageCost] = {}

    @property
    def num_layers(self) -> int:
        """Number of affine layers."""
        return self.network.num_layers

    def stage(self, first_layer: int, last_layer: int) -> NetworkStageCost:
        """The costs of layers first_layer..last_layer, inclusive, as one stage."""
        is_last = last_layer == self.network.num_layers - 1
        key = (first_layer == 0, is_last, self._shapes[first_layer : last_layer + 1])
        if key not in self._stages:
            self._stages[key] = NetworkStageCost(self.network, self.optimizer, self.itemsize, first_layer, last_layer)
        return self._stages[key]

    def least_s(self, num_examples: int, devices: Sequence[Device]) -> float:
        """Seconds that the arithmetic of so many examples takes on all devices at their peak rates together."""
        flop = self.stage(0, self.num_layers - 1).flop(num_examples)
        return flop / sum(device.flop_per_s for device in devices)

    def origin(self, cluster: Cluster) -> str:
        """The rates of the devices, and the links."""
        return cluster.cost_source
