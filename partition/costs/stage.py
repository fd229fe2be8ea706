"""The costs of a stage: bytes to the byte and kernels of each of its actions, for any microbatch size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from partition.costs.allocator import EXACT, AllocatorRules
from partition.costs.block_work import Work
from partition.costs.hardware import Cluster, Device
from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect, memory_steps
from partition.costs.optimizer import OptimizerRecord
from partition.costs.source import MicrobatchCost, StageCost
from partition.costs.work import operator_key, program_work, seconds_on
from partition.graph import (
    Category,
    Layer,
    LossRecord,
    Network,
    Program,
    Spans,
    StageProgram,
    build_stage_program,
    recomputed,
)
from partition.graph.pieces import piece_elements
from partition.graph.program import WIDE_ITEMSIZE, Take, Variable, operators

MOST_LAYERS_AT_ONCE = 1000
"""Of a program that is written out for a bound alone."""


class PricedProgram:
    """A program for any microbatch size."""

    def __init__(self, program: Program, itemsize: int, loss: LossRecord, rules: AllocatorRules = EXACT) -> None:
        self._program = program
        self._itemsize = itemsize
        self._loss = loss
        self._rules = rules

    @cached_property
    def _steps(self) -> tuple[MemoryStep, ...]:
        return memory_steps(self._program, self._itemsize)

    def memory(self, rows: int) -> MemoryEffect:
        """Bytes taken and given on a microbatch of `rows` examples."""
        return memory_effect(self._steps, rows, self._rules)

    def kernels(self, rows: int) -> tuple[Work, ...]:
        """Operations and bytes moved of every kernel, in order."""
        return program_work(self._program, rows, self._itemsize, self._loss)

    @cached_property
    def operator_counts(self) -> Mapping[str, int]:
        """How often each operator runs, by its key in a costs file."""
        return Counter(operator_key(operator, self._loss) for operator in operators(self._program))


class ProgramCost:
    """One program on one microbatch size; what is never asked for is never computed."""

    def __init__(self, program: PricedProgram, rows: int) -> None:
        self._program = program
        self._rows = rows
        self._seconds: dict[object, float] = {}

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
        if device.rates not in self._seconds:
            profile = device.profile
            self._seconds[device.rates] = (
                seconds_on(device, self.kernels)
                if profile is None
                else profile.operators_s(self._program.operator_counts, self._rows)
            )
        return self._seconds[device.rates]

    def least_seconds(self, device: Device) -> float:
        """Seconds at the best rate of a microbatch of any size: of arithmetic alone where nothing is measured."""
        if device.profile is not None:
            return device.profile.best_operators_s(self._program.operator_counts, self._rows)
        return sum(work.flop for work in self.kernels) / device.flop_per_s


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The optimizer step of a stage."""

    memory: MemoryEffect
    kernels: tuple[Work, ...]
    elements: int
    """Of all parameters."""

    def seconds(self, device: Device) -> float:
        """Seconds on a device."""
        if device.profile is not None:
            return device.profile.update_s(self.elements)
        return seconds_on(device, self.kernels)


class NetworkStageCost:
    """The costs of the layers first_layer..last_layer of a network as one stage."""

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerRecord,
        itemsize: int,
        first_layer: int,
        last_layer: int,
        rules: AllocatorRules = EXACT,
        recompute: Spans = (),
        *,
        has_noise: bool = False,
        is_mixed: bool = False,
    ) -> None:
        self.network = network
        self.has_noise, self.is_mixed = has_noise, is_mixed
        self.wide_itemsize = WIDE_ITEMSIZE if is_mixed else itemsize
        """Bytes of a parameter, of a gradient of one, of a number that sums are made in."""
        self.optimizer = optimizer
        self.itemsize = itemsize
        self.rules = rules
        self.recompute = recompute
        self.layers = network.layers[first_layer : last_layer + 1]
        self.weighted = tuple(part for layer in self.layers for part in layer.weighted)
        self.is_last = last_layer == network.num_layers - 1
        self._microbatches: dict[int, MicrobatchCost] = {}

    @cached_property
    def program(self) -> StageProgram:
        """The programs of the stage; its parameters and its optimizer step are priced without them."""
        first, last = self.layers[0].index, self.layers[-1].index
        program = build_stage_program(self.network, first, last, has_noise=self.has_noise, is_mixed=self.is_mixed)
        return recomputed(program, self.recompute)

    @property
    def has_recomputation(self) -> bool:
        """Whether R runs before its backwards."""
        return bool(self.recompute and self.program.recompute)

    @cached_property
    def _actions(self) -> dict[str, PricedProgram]:
        program = self.program
        received = None if program.is_first else program.input
        return {
            "forward": self.priced(program.forward),
            "backward": self.priced(program.backward),
            "input_grad": self.priced(program.input_grad),
            "weight_grad": self.priced(program.weight_grad),
            "recompute": self.priced(program.recompute),
            "receive_forward": self.priced((Take(received),) if received else ()),
            "receive_backward": self.priced((Take(program.grad_output),) if program.grad_output else ()),
        }

    def priced(self, program: Program) -> PricedProgram:
        """A program of these layers."""
        return PricedProgram(program, self.itemsize, self.network.loss, self.rules)

    @cached_property
    def parameter_elements(self) -> int:
        """Elements of all parameters of the stage."""
        return sum(layer.parameter_elements for layer in self.layers)

    @cached_property
    def tensor_bytes(self) -> tuple[int, ...]:
        """Of each parameter tensor, layer by layer, weight before bias."""
        return tuple(elements * self.wide_itemsize for part in self.weighted for elements in part.tensor_elements)

    @cached_property
    def parameter_tensors(self) -> int:
        """One per weight and per bias."""
        return sum(1 + part.has_bias for part in self.weighted)

    def static_bytes(self, num_microbatches: int) -> dict[Category, int]:
        """Bytes that live as long as the stage, for steps of at most `num_microbatches` microbatches.

        What libraries take is of the rank: where it has several stages, it counts once for all (`shared_bytes`).
        """
        # The 1 that a backward starts from, of the format of what the stage leaves; the last stage keeps the loss of
        # every microbatch of a step beside it, and a stage that measures noise a norm for each of its parts with
        # parameters and microbatches.
        num_norms = len(self.weighted) * num_microbatches if self.has_noise else 0
        # Some losses read a number for every class.
        has_vector = self.is_last and self.network.loss.has_class_vector
        num_classes = self.layers[-1].out_features if has_vector else 0
        numbers = (num_microbatches if self.is_last else 0, num_norms, num_classes)
        workspace = self.rules.block_bytes(self.wide_itemsize if self.is_last else self.itemsize)
        workspace += sum(self.rules.block_bytes(count * self.wide_itemsize) for count in numbers)
        return {
            Category.PARAMETERS: self.parameter_bytes,
            Category.GRADIENTS: self.parameter_bytes,
            Category.OPTIMIZER: self.optimizer.state_bytes(self.parameter_bytes, self.parameter_tensors, 1, self.rules),
            Category.WORKSPACE: workspace + self.shared_bytes,
        }

    @cached_property
    def parameter_bytes(self) -> int:
        """What the parameters take of memory, each in a block of its own."""
        if self.rules is EXACT:
            return self.parameter_elements * self.wide_itemsize
        return sum(map(self.rules.block_bytes, self.tensor_bytes))

    @property
    def shared_bytes(self) -> int:
        """Of the static bytes, those that are the rank's, whichever stages it has."""
        return self.rules.library_bytes

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
            rules=self.rules,
        )

    def least_s(self, rows: int, device: Device) -> float:
        """Seconds that a forward and a backward of `rows` examples cannot be below."""
        actions = (ProgramCost(self._actions[name], rows) for name in ("forward", "backward"))
        return sum(action.least_seconds(device) for action in actions)

    def _bytes(self, variable: Variable | None, rows: int) -> int:
        return variable.num_bytes(rows, self.itemsize) if variable else 0

    @cached_property
    def step(self) -> StepCost:
        """The optimizer step: the norms of the gradients, the penalty where there is one, the update."""
        # The norms are read back before the update runs, so the workspaces are never alive together; that of the
        # penalty are a number beside the norms, and then a piece and the norms of its rows.
        number, rows = self.penalty_numbers
        norms, product, piece, of_piece, update = (
            (MemoryStep(0, num_bytes, Category.WORKSPACE), MemoryStep(0, -num_bytes, Category.WORKSPACE))
            for num_bytes in (
                self.num_norms * self.wide_itemsize,
                number * self.wide_itemsize,
                self.piece_bytes,
                rows * self.wide_itemsize,
                self.optimizer.workspace_bytes,
            )
        )
        steps = [norms[0], *product, norms[1], piece[0], *of_piece, piece[1], *update]
        effect = memory_effect(steps, 1, self.rules)
        return StepCost(
            memory=effect, kernels=(self._norm_work(), self._update_work()), elements=self.parameter_elements
        )

    @cached_property
    def num_norms(self) -> int:
        """Numbers that the step reads back: a norm for each row of a gradient, and of a weight that is penalised.

        Where the penalty is taken off, the product of both besides.
        """
        gradients = sum(math.prod(part.weight_shape[:-1]) + part.has_bias for part in self.weighted)
        rows = [part.penalised_rows for part in self.weighted if part.penalised_rows and self.network.l2_penalty]
        return gradients + sum(rows) + self.is_penalty_removed * len(rows)

    @property
    def penalty_numbers(self) -> tuple[int, int]:
        """Where the penalty is taken off: the number that a product is made in, and the most rows of a weight."""
        rows = max((part.penalised_rows for part in self.weighted), default=0)
        return (1, rows) if self.is_penalty_removed and rows else (0, 0)

    @property
    def is_penalty_removed(self) -> bool:
        """Whether the step takes the norms of the gradients without the penalty too, which has no noise."""
        return self.has_noise and self.network.l2_penalty != 0

    @cached_property
    def piece_bytes(self) -> int:
        """The workspace in which the penalty is taken off the gradients, piece by piece."""
        layers = [part for part in self.weighted if isinstance(part, Layer)]
        return piece_elements(layers) * self.itemsize if self.is_penalty_removed else 0

    def _norm_work(self) -> Work:
        weights = sum(part.weight_elements for part in self.weighted if part.penalised_rows)
        elements = self.parameter_elements + (weights if self.network.l2_penalty else 0)
        elements += 2 * weights if self.is_penalty_removed else 0
        return Work(2 * elements, elements * self.wide_itemsize)

    def _update_work(self) -> Work:
        # The gradient is read; the parameter and every state copy are read and written.
        passes = 3 + 2 * self.optimizer.state_copies
        return Work(
            self.optimizer.flop_per_element * self.parameter_elements,
            passes * self.parameter_elements * self.wide_itemsize,
        )


def rank_static_bytes(stages: Sequence[StageCost], num_microbatches: int) -> Counter[Category]:
    """Bytes that live as long as the stages of one rank; what libraries take counts once for all of them."""
    total: Counter[Category] = Counter()
    for stage in stages:
        total.update(stage.static_bytes(num_microbatches))
    total[Category.WORKSPACE] -= sum(stage.shared_bytes for stage in stages[1:])
    return total


class CostModel:
    """Stage costs of a network, each computed once; stages of equal layers share theirs."""

    stage_cost: type[NetworkStageCost] = NetworkStageCost
    """Of what the stages do: a step of training."""
    microbatch_rows: int | None = None
    """Any number of examples can be priced."""
    splits_backward = True
    can_recompute = True

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerRecord,
        itemsize: int,
        rules: AllocatorRules = EXACT,
        *,
        has_noise: bool = False,
        is_mixed: bool = False,
    ) -> None:
        self.network = network
        self.has_noise = has_noise
        """Whether a step measures the noise of the gradient besides."""
        self.is_mixed = is_mixed
        """Whether numbers of `itemsize` bytes are those of the arithmetic alone, parameters and sums being wider."""
        self.optimizer = optimizer
        self.itemsize = itemsize
        self.rules = rules
        self._kinds = tuple(layer.kind for layer in network.layers)
        self._run_ends = _run_ends(self._kinds)
        self._stages: dict[object, NetworkStageCost] = {}

    def _runs(self, first_layer: int, last_layer: int) -> tuple[object, ...]:
        """The layers as runs of equal ones, each with its length: thousands of equal layers make a short key."""
        found: list[object] = []
        while first_layer <= last_layer:
            end = min(self._run_ends[first_layer], last_layer)
            found += (self._kinds[first_layer], end + 1 - first_layer)
            first_layer = end + 1
        return tuple(found)

    @property
    def num_layers(self) -> int:
        """Number of affine layers, or of blocks."""
        return self.network.num_layers

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> NetworkStageCost:
        """The costs of layers first_layer..last_layer, inclusive, as one stage that recomputes some of them."""
        is_last = last_layer == self.network.num_layers - 1
        spans = tuple((first - first_layer, last - first_layer) for first, last in recompute)
        key = (first_layer == 0, is_last, self._runs(first_layer, last_layer), spans)
        if key not in self._stages:
            self._stages[key] = self.stage_cost(
                self.network, self.optimizer, self.itemsize, first_layer, last_layer, self.rules, recompute,
                has_noise=self.has_noise, is_mixed=self.is_mixed,
            )  # fmt: skip
        return self._stages[key]

    def least_s(self, num_examples: int, devices: Sequence[Device]) -> float:
        """Seconds that the operators of so many examples take on all devices at their best rates together."""
        kinds = {device.rates: self._least_s(num_examples, device) for device in distinct_rates(devices)}
        return 1 / sum(1 / kinds[device.rates] for device in devices)

    def _least_s(self, num_examples: int, device: Device) -> float:
        """Of all layers on one device: as one stage, or, of very many, as what each and each pair of them adds."""
        layers = self.num_layers
        if layers <= MOST_LAYERS_AT_ONCE:
            return self.stage(0, layers - 1).least_s(num_examples, device)
        of = cache(lambda stage: stage.least_s(num_examples, device))
        pairs_s = math.fsum(of(self.stage(layer, layer + 1)) for layer in range(layers - 1))
        return pairs_s - math.fsum(of(self.stage(layer, layer)) for layer in range(1, layers - 1))

    def origin(self, cluster: Cluster) -> str:
        """The rates of the devices, and the links."""
        return cluster.cost_source


def distinct_rates(devices: Sequence[Device]) -> list[Device]:
    """One device of every speed."""
    return list({device.rates: device for device in devices}.values())


def _run_ends(shapes: Sequence[object]) -> list[int]:
    """For each layer the last one of the run of equal layers that it is in."""
    ends = list(range(len(shapes)))
    for index in range(len(shapes) - 2, -1, -1):
        if shapes[index] == shapes[index + 1]:
            ends[index] = ends[index + 1]
    return ends
