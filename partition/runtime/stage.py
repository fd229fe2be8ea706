"""A stage at work: contiguous layers on one device as one `torch.autograd.Function` with a hand-written backward.

    F    y = StageFunction(x, parameters)    runs the forward program, keeps one tensor per layer in a frame
    B    torch.autograd.grad of y            runs the backward program; its result is the input gradient
    I    the same, weight gradients queued   W runs them later, the same products on the same tensors

The programs are those that the planner priced (`partition.graph.program`); here each instruction meets its kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from partition.graph import Category, Network, Program, StageProgram, Variable
from partition.graph.block_operators import Accumulate
from partition.graph.layers import Layer, Weighted
from partition.graph.mixed_operators import Cast
from partition.graph.program import (
    WIDE_FORMAT,
    Give,
    Load,
    Take,
)
from partition.graph.recompute import unit_of, units_of_parts, written
from partition.ops.losses import bind_loss, class_vector
from partition.ops.mixed import weights_in
from partition.runtime.affine_kernels import AFFINE_METHODS
from partition.runtime.block_kernels import BLOCK_METHODS
from partition.runtime.device import TensorSource
from partition.runtime.mixed_kernels import MIXED_METHODS
from partition.runtime.parameters import Parameters


class Feed(Protocol):
    """Fills the inputs or the targets of a microbatch."""

    def __call__(self, variable: str, microbatch: int, into: Tensor) -> None:
        """Write the rows of the microbatch into the given tensor; `variable` is "x" or "targets"."""


@dataclass(kw_only=True)
class Frame:
    """The tensors of one microbatch in one stage, by name of variable."""

    microbatch: int
    rows: int
    weight: float
    """1/N of the minibatch."""
    is_first: bool
    """The first microbatch of the step: its weight gradients overwrite, the others add."""
    feed: Feed | None = None
    """Where the first stage gets its inputs from and the last its targets."""
    step: int = 0
    """The optimizer step, and the place of the first row in its minibatch: from these follows what dropout drops."""
    first_example: int = 0
    is_split: bool = False
    """The backward runs I and leaves W for later."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    edge: GradientEdge | None = None
    """Where the backward of this microbatch starts."""


class Stage:
    """Contiguous layers of a network with their parameters: programs on one side, kernels on the other."""

    def __init__(
        self,
        network: Network,
        program: StageProgram,
        source: TensorSource,
        layers: Mapping[int, Parameters],
        num_microbatches: int,
        *,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.network = network
        self.program = program
        self.source = source
        self.layers = layers
        wide = wide_dtype(program)
        # dJ/dL = 1, and elsewhere a token that autograd carries in place of the gradient that the frame holds: of the
        # format of what the stage leaves.
        self.one = source.take((), Category.WORKSPACE, "dJ/dL = 1", wide if program.is_last else None).fill_(1.0)
        num_losses = num_microbatches if program.is_last else 0
        self.losses_M = source.take((num_losses,), Category.WORKSPACE, "the losses of a step", wide)
        self.loss = bind_loss(network.loss, self._class_vector() if program.is_last else None)
        self.norms_LM: Tensor | None = None
        """Of the gradients of the examples, by part and microbatch; None where noise is not measured."""
        self.example_norms: dict[int, tuple[Tensor, ...]] = {}
        """The same numbers one by one: to take a view costs as much as the norm of a few rows."""
        if program.has_noise:
            shape = (len(layers), num_microbatches)
            self.norms_LM = source.take(shape, Category.WORKSPACE, "the norms of the examples' gradients")
            rows = zip(layers, self.norms_LM.unbind(), strict=True)
            self.example_norms = {index: norms_M.unbind() for index, norms_M in rows}

    @property
    def parameters(self) -> list[Tensor]:
        """Part by part, weight before bias."""
        return [tensor for of in self.layers.values() for tensor in of.tensors]

    def _class_vector(self) -> Tensor | None:
        numbers = class_vector(self.network.loss, self.program.prediction.columns or 1)
        if numbers is None:
            return None
        wide = wide_dtype(self.program)
        vector_q = self.source.take((len(numbers),), Category.WORKSPACE, "a number for every class", wide)
        for class_index, number in enumerate(numbers):
            vector_q[class_index].fill_(number)
        return vector_q

    # Actions

    def receive(self, variable: Variable, frame: Frame) -> Tensor:
        """A buffer for what the neighbour sends, part of the frame from now on."""
        self._take(Take(variable), frame)
        return frame.tensors[variable.name]

    def forward(self, frame: Frame) -> Tensor:
        """F: the output to send, or the loss on the last stage. The frame keeps what the backward needs."""
        x = frame.tensors.get(self.program.input.name)
        if x is not None:
            x.requires_grad_(True)
        y: Tensor = StageFunction.apply(self, frame, x, *self.parameters)  # type: ignore[no-untyped-call]
        # The edge stands for y in the backward, so that y itself can be given back once it has been sent. Nor does y
        # stay in the frame: its node holds x, and what is sent may be under way still when the backward gives x back.
        frame.edge, output = get_gradient_edge(y), y.detach()
        if not self.program.is_last:
            frame.tensors[self.program.output.name] = output
        return output

    def backward(self, frame: Frame, *, is_split: bool) -> None:
        """B, or I where `is_split`: leaves the input gradient in the frame, except on the first stage."""
        edge, frame.edge, frame.is_split = frame.edge, None, is_split
        assert edge is not None, "F runs before B, once"
        received = self.program.grad_output
        # The gradient is in the frame, and leaves it as soon as it has been used; a reference here would keep it.
        grad_y = self.one if received is None else self.one.expand(received.shape(frame.rows))
        if self.program.is_first:
            torch.autograd.backward((edge,), (grad_y,))
        else:
            x = frame.tensors[self.program.input.name]
            torch.autograd.grad((edge,), (x,), (grad_y,))

    def recompute(self, frame: Frame) -> None:
        """R: what F has not kept, from what it has, just as F made it."""
        with torch.no_grad():
            self.run(self.program.recompute, frame)

    def weight_grad(self, frame: Frame) -> None:
        """W: the weight gradients that I left, in one go."""
        with torch.no_grad():
            self.run(self.program.weight_grad, frame)

    def predict(self, frame: Frame, examine: Callable[[int, Tensor], None] | None = None) -> Tensor:
        """Forward without keeping anything: the logits on the last stage, what to send elsewhere.

        `examine` sees what every operator makes, with its layer (or block); the inputs with -1.
        """
        with torch.no_grad():
            if examine is None:
                self.run(self.program.predict, frame)
            else:
                self._run_examined(frame, examine)
        return frame.tensors[self.program.prediction.name]

    def example_squares(self, num_microbatches: int) -> list[float]:
        """The sum over the step's examples of the squared norms of their gradients, by part, in float64."""
        if self.norms_LM is None:
            return []
        norms = self.norms_LM[:, :num_microbatches].tolist()
        return [math.fsum(norm * norm for norm in of_layer) for of_layer in norms]

    def give_back(self, variable: Variable, frame: Frame) -> None:
        """Return a variable of the frame to the device."""
        self._give(Give(variable), frame)

    def run(self, program: Program, frame: Frame) -> None:
        """Interpret a program on the tensors of a frame."""
        for instruction in program:
            INSTRUCTION_METHODS[type(instruction)](self, instruction, frame)

    def _run_examined(self, frame: Frame, examine: Callable[[int, Tensor], None]) -> None:
        units, unit = units_of_parts(self.program.layers), -1
        for instruction in self.program.predict:
            self.run((instruction,), frame)
            if isinstance(instruction, Take | Give):
                continue
            # A sum is of the unit that has made what is summed; what is cast by itself are the inputs.
            if not isinstance(instruction, Load | Cast | Accumulate):
                unit = unit_of(instruction, self.program, units)
            for variable in written(instruction):
                examine(unit, frame.tensors[variable.name])

    # Instructions

    def _take(self, instruction: Take, frame: Frame) -> None:
        variable = instruction.variable
        dtype = torch.int64 if variable.is_index else WIDE_DTYPE if variable.is_wide else None
        frame.tensors[variable.name] = self.source.take(
            variable.shape(frame.rows), variable.category, f"{variable.name} of microbatch {frame.microbatch}", dtype
        )

    def _give(self, instruction: Give, frame: Frame) -> None:
        variable = instruction.variable
        self.source.give(frame.tensors.pop(variable.name), variable.category)

    def weights_of(self, layer: Layer, weights: Variable | None, frame: Frame) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a layer, or the temporary that has them in the compute format."""
        if weights is not None:
            return weights_in(frame.tensors[weights.name], layer)
        of = self.layers[layer.index]
        return of.weight_OI, of.bias_O

    def norm_of(self, part: Weighted, frame: Frame) -> Tensor:
        """Where the norm of the gradients of all examples of a microbatch goes, a number."""
        return self.example_norms[part.index][frame.microbatch]


# Not bound to a stage: one that held its own methods would live, with its tensors, until the cyclic collector runs.
INSTRUCTION_METHODS: dict[type, Callable[[Stage, Any, Frame], None]] = {
    Take: Stage._take,
    Give: Stage._give,
    **AFFINE_METHODS,
    **BLOCK_METHODS,
    **MIXED_METHODS,
}


WIDE_DTYPE: torch.dtype = getattr(torch, WIDE_FORMAT)


def wide_dtype(program: StageProgram) -> torch.dtype | None:
    """The format of a stage's parameters and sums; None where it is that of everything else."""
    return WIDE_DTYPE if program.is_mixed else None


class StageFunction(torch.autograd.Function):
    """A stage as one node of the autograd graph.

    The weight gradients go into the stage's own buffers, at once in B and later in W after I, so the backward returns
    the input gradient alone. A backward that ends in the loss starts from dJ/dL = 1, which F has used already.
    """

    @staticmethod
    def forward(ctx: Any, stage: Stage, frame: Frame, x: Tensor | None, *parameters: Tensor) -> Tensor:
        """The output of the stage, (B, I) -> (B, O), or the loss, a number. `x` is in the frame already."""
        del x
        ctx.stage, ctx.frame, ctx.num_parameters = stage, frame, len(parameters)
        stage.run(stage.program.forward, frame)
        if stage.program.is_last:
            return stage.losses_M[frame.microbatch]
        return frame.tensors[stage.program.output.name]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The input gradient; weight gradients are accumulated in place or left for W."""
        del grad_outputs  # in the frame already: received there, or computed with the loss
        stage, frame = ctx.stage, ctx.frame
        program = stage.program
        stage.run(program.input_grad if frame.is_split else program.backward, frame)
        grad_x = frame.tensors[program.grad_input.name] if program.grad_input else None
        return (None, None, grad_x, *([None] * ctx.num_parameters))
