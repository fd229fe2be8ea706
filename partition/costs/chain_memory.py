"""What a stage of a table's rows holds in every action.

    F    layer by layer: what it keeps and its output beside its input, which counts as part of what it keeps as far as
         it keeps that much; then the stage holds what its layers keep, and its output until that is sent
    B    from the last layer: the gradient of its input beside that of its output and what it keeps
    I    the same, but nothing is given back: W needs what was kept, and the gradient of every layer's output
    W    gives all of that back

A search asks for thousands of stages of hundreds of rows, so totals and peaks are read off running sums over the rows.
With k, a and o what row j keeps, receives and sends on, and K[j] the sum of k over the rows before it, a stage has

    at the peak of F in row j    K[j] - K[first] + max(k, a) + o - a[first]
    at the peak of B in row j    a + o - (K[last + 1] - K[j + 1]) - o[last]

with the last o only where it is received, and never less than 0. What it consists of is found step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect
from partition.costs.table import LayerCost
from partition.graph import Category

Running = Sequence[int]
"""Bytes of the rows before every row, and of all."""


class ChainBytes:
    """The bytes of a table's rows, and their running sums."""

    def __init__(self, layers: Sequence[LayerCost]) -> None:
        self.kept_bytes = [layer.saved_bytes or 0 for layer in layers]
        self.boundary_bytes = [0, *(layer.activation_bytes for layer in layers)]
        """Before every row and after the last; the examples are in no row."""
        self.parameters = _running(layer.parameter_bytes for layer in layers)
        self.optimizer = _running(layer.optimizer_bytes for layer in layers)
        self.kept = _running(self.kept_bytes)
        self.boundaries = _running(self.boundary_bytes)
        rows = list(zip(self.kept_bytes, self.boundary_bytes, self.boundary_bytes[1:], strict=False))
        self.in_forward = [before + max(kept, received) + sent
                           for before, (kept, received, sent) in zip(self.kept, rows, strict=False)]  # fmt: skip
        """At the peak of F in every row, were the chain's first row the stage's."""
        self.in_backward = [received + sent + up_to
                            for up_to, (_, received, sent) in zip(self.kept[1:], rows, strict=True)]  # fmt: skip
        """At the peak of B in every row, without what is taken off for the end of the stage."""

    def of_stage(self, running: Running, first_layer: int, last_layer: int) -> int:
        """The sum over the rows of a stage."""
        return running[last_layer + 1] - running[first_layer]


def _running(values: Iterable[int]) -> list[int]:
    return [0, *accumulate(values)]


@dataclass(frozen=True, kw_only=True)
class ChainEffect:
    """The bytes of one action, whose steps are looked at only for what they are for."""

    net_bytes: int
    peak_bytes: int
    find_steps: Callable[[], Iterator[MemoryStep]]

    @property
    def net_by_category(self) -> Mapping[Category, int]:
        """What stays, by what it is for."""
        return self._effect.net_by_category

    @property
    def peak_by_category(self) -> Mapping[Category, int]:
        """What the excess consists of at its peak."""
        return self._effect.peak_by_category

    @cached_property
    def _effect(self) -> MemoryEffect:
        return memory_effect(tuple(self.find_steps()), 0)


class ChainStageMemory:
    """The bytes of the actions of rows first_layer..last_layer as one stage, of one microbatch."""

    def __init__(self, of: ChainBytes, first_layer: int, last_layer: int) -> None:
        self.of = of
        self.first_layer = first_layer
        self.last_layer = last_layer
        self.is_last = last_layer == len(of.kept_bytes) - 1
        self.input_bytes = of.boundary_bytes[first_layer]
        """What the stage receives; 0 for the first one, whose examples are in no row."""
        self.sent_bytes = 0 if self.is_last else of.boundary_bytes[last_layer + 1]

    def received(self, num_bytes: int) -> MemoryEffect:
        """A buffer for a message."""
        return memory_effect((_step(num_bytes, Category.BOUNDARY),), 0)

    @property
    def forward(self) -> ChainEffect:
        """F: the input gives way to what is kept, and to what is sent."""
        before = self.of.kept[self.first_layer] + self.input_bytes
        return ChainEffect(
            net_bytes=self._kept_bytes + self.sent_bytes - self.input_bytes,
            peak_bytes=max(0, max(self.of.in_forward[self.first_layer : self.last_layer + 1]) - before),
            find_steps=self._forward_steps,
        )

    @property
    def backward(self) -> ChainEffect:
        """B: what was kept and received gives way to the gradient of the input."""
        after = self.of.kept[self.last_layer + 1] + self.sent_bytes
        return ChainEffect(
            net_bytes=self.input_bytes - self._kept_bytes - self.sent_bytes,
            peak_bytes=max(0, max(self.of.in_backward[self.first_layer : self.last_layer + 1]) - after),
            find_steps=lambda: self._backward_steps(gives_back=True),
        )

    @property
    def input_grad(self) -> ChainEffect:
        """I: the gradient of every layer's input, and of the last output, which comes from nowhere."""
        taken_bytes = self.of.of_stage(self.of.boundaries, self.first_layer, self.last_layer)
        taken_bytes += self.of.boundary_bytes[-1] if self.is_last else 0
        return ChainEffect(
            net_bytes=taken_bytes,
            peak_bytes=taken_bytes,
            find_steps=lambda: self._backward_steps(gives_back=False),
        )

    @property
    def weight_grad(self) -> ChainEffect:
        """W: nothing stays of what was kept, nor of the gradients of outputs."""
        given_bytes = self._kept_bytes + self.of.of_stage(self.of.boundaries, self.first_layer + 1, self.last_layer + 1)
        return ChainEffect(net_bytes=-given_bytes, peak_bytes=0, find_steps=self._weight_grad_steps)

    @property
    def _kept_bytes(self) -> int:
        return self.of.of_stage(self.of.kept, self.first_layer, self.last_layer)

    def _boundary(self, layer: int) -> tuple[int, Category]:
        """Bytes before a layer, and what they are for."""
        is_end = layer == self.first_layer or (layer == self.last_layer + 1 and not self.is_last)
        return self.of.boundary_bytes[layer], Category.BOUNDARY if is_end else Category.ACTIVATIONS

    def _forward_steps(self) -> Iterator[MemoryStep]:
        for layer in range(self.first_layer, self.last_layer + 1):
            (input_bytes, of_input), (output_bytes, of_output) = self._boundary(layer), self._boundary(layer + 1)
            kept_bytes = self.of.kept_bytes[layer]
            alive_bytes = max(kept_bytes, input_bytes)
            yield _step(-input_bytes, of_input)
            yield _step(alive_bytes, Category.ACTIVATIONS)
            yield _step(output_bytes, of_output)
            yield _step(kept_bytes - alive_bytes, Category.ACTIVATIONS)
        if self.is_last:
            yield _step(-output_bytes, of_output)

    def _backward_steps(self, *, gives_back: bool) -> Iterator[MemoryStep]:
        """Of B, or of I, which gives nothing back."""
        if self.is_last:  # the gradient of its output is received from nowhere
            yield _step(*self._boundary(self.last_layer + 1))
        for layer in range(self.last_layer, self.first_layer - 1, -1):
            yield _step(*self._boundary(layer))
            if gives_back:
                yield from self._given_back(layer)

    def _weight_grad_steps(self) -> Iterator[MemoryStep]:
        for layer in range(self.last_layer, self.first_layer - 1, -1):
            yield from self._given_back(layer)

    def _given_back(self, layer: int) -> Iterator[MemoryStep]:
        """What a layer keeps, and the gradient of its output."""
        output_bytes, of_output = self._boundary(layer + 1)
        yield _step(-self.of.kept_bytes[layer], Category.ACTIVATIONS)
        yield _step(-output_bytes, of_output)


def _step(num_bytes: int, category: Category) -> MemoryStep:
    return MemoryStep(0, num_bytes, category)
