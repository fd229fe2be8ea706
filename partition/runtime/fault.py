"""What first became infinite or no number in a step that went wrong: looked for afterwards, so that all else is free.

The gradients that are not finite have not been applied, so the layers still are what they were: a forward pass over
the same examples finds the first output that is not finite. Where all are, the gradients tell: they run from the last
layer to the first. Every rank looks at what it has and tells the others, so all give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from partition.graph.layers import Block, Unit
from partition.graph.recompute import units_of_parts
from partition.plan import Candidate
from partition.runtime.stage import Stage
from partition.runtime.world import Numbers, World, share_all

INPUTS = -1
"""In place of a layer: the examples themselves."""
OF_INPUTS = "the inputs of the minibatch are not all finite"
"""What no learning rate mends."""
_NONE_FORWARD, _NONE_BACKWARD = math.inf, -math.inf


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is; takes a byte for each."""
    return bool(torch.isfinite(tensor).all())


@dataclass(kw_only=True)
class Findings:
    """What one rank has found."""

    first_output: float = _NONE_FORWARD
    """The first layer, or block, with an output that is not finite."""
    last_gradient: float = _NONE_BACKWARD
    """The last layer, or block, with a gradient that is not finite."""

    def output(self, layer: int, tensor: Tensor) -> None:
        """Look at the output of a layer, or at the inputs."""
        if layer < self.first_output and not is_finite(tensor):
            self.first_output = layer

    def gradients(self, layer: int, tensors: Iterable[Tensor]) -> None:
        """Look at the gradients of a layer."""
        if layer > self.last_gradient and not all(map(is_finite, tensors)):
            self.last_gradient = layer

    def gradients_of(self, stage: Stage) -> None:
        """Look at the gradients of a stage's layers."""
        units = units_of_parts(stage.program.layers)
        unit_of_index = {part.index: units[part] for unit in stage.program.layers for part in unit.weighted}
        for index, of in stage.layers.items():
            self.gradients(
                unit_of_index[index], (one for one in (of.grad_weight_OI, of.grad_bias_O) if one is not None)
            )

    @property
    def numbers(self) -> Numbers:
        """What the other ranks are told."""
        return np.array([self.first_output, self.last_gradient])


def describe_fault(world: World, findings: Mapping[int, Findings], candidate: Candidate, units: Sequence[Unit]) -> str:
    """What first was not finite, as a phrase; all ranks call it, each with its findings, and have the same answer.

    `units` are the layers of the network, or its blocks.
    """
    every = share_all(world, {rank: of.numbers for rank, of in findings.items()})
    output, gradient = min(of[0] for of in every), max(of[1] for of in every)
    if output == INPUTS:
        return OF_INPUTS
    if output != _NONE_FORWARD:
        return f"the output of {_place(candidate, units[int(output)])} was the first that is not finite"
    if gradient != _NONE_BACKWARD:
        return (
            f"all outputs are finite, and the gradient of {_place(candidate, units[int(gradient)])} was the first that "
            "is not"
        )
    return "outputs and gradients are finite, and what is summed over them is too large a number"


def _place(candidate: Candidate, unit: Unit) -> str:
    """A layer or a block with its layers, and where it lives if that is not plain."""
    name, details = f"layer {unit.index}", list[str]()
    if isinstance(unit, Block):
        first, last = unit.weighted[0].index, unit.weighted[-1].index
        name = f"block {unit.index}"
        details.append(f"layer {first}" if first == last else f"layers {first} to {last}")
    if candidate.num_stages > 1:
        plan = next(one for one in candidate.stages if one.first_layer <= unit.index <= one.last_layer)
        details.append(f"stage {plan.stage_index} on {plan.device}")
    return f"{name} ({'; '.join(details)})" if details else name
