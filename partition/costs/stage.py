"""The costs of a stage of a network: what it holds throughout, and each of its actions for any microbatch size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from partition.costs.allocator import EXACT, AllocatorRules
from partition.costs.hardware import Device
from partition.costs.optimizer import OptimizerRecord
from partition.costs.program import PricedProgram, ProgramCost
from partition.costs.source import MicrobatchCost, StageCost
from partition.costs.step import StepCost, TrainingStep
from partition.graph import Category, Network, Program, Spans, StageProgram, build_stage_program, recomputed
from partition.graph.program import WIDE_ITEMSIZE, Take, Variable


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
        step = TrainingStep(
            parts=self.weighted,
            optimizer=self.optimizer,
            wide_itemsize=self.wide_itemsize,
            l2_penalty=self.network.l2_penalty,
            has_noise=self.has_noise,
        )
        return step.cost(self.rules)


def rank_static_bytes(stages: Sequence[StageCost], num_microbatches: int) -> Counter[Category]:
    """Bytes that live as long as the stages of one rank; what libraries take counts once for all of them."""
    total: Counter[Category] = Counter()
    for stage in stages:
        total.update(stage.static_bytes(num_microbatches))
    total[Category.WORKSPACE] -= sum(stage.shared_bytes for stage in stages[1:])
    return total
