"""Follows the instructions of all stages and tells values from buffers: one overwritten in place holds several.

The trace is what the three graphs are cut from: operators of the forward, then those of the backward, each with the
values that it reads and writes, and the spine, the chain along which the forward runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from partition.graph.computational.described import AFFINE, Described, Surroundings, number_parts
from partition.graph.computational.describing import describe, record_of
from partition.graph.computational.nodes import Carry, OperatorNode, Phase, Role, VariableNode, symbolic_shape
from partition.graph.layers import Unit, Weighted
from partition.graph.network import Network
from partition.graph.program import (
    Category,
    Give,
    Load,
    LossAndGrad,
    Operator,
    Program,
    StageProgram,
    Take,
    Variable,
    build_stage_program,
    operators,
)

GRADIENT = "∂"
LOSS, LOSS_GRADIENT = "loss", "loss gradient"


@dataclass(kw_only=True)
class Trace:
    """Everything that the stages of a network do with one microbatch, forward and backward."""

    network: Network
    segments: tuple[tuple[int, int], ...]
    variables: dict[str, VariableNode] = field(default_factory=dict)
    forward: list[OperatorNode] = field(default_factory=list)
    backward: list[OperatorNode] = field(default_factory=list)
    forward_carries: list[Carry] = field(default_factory=list)
    backward_carries: list[Carry] = field(default_factory=list)
    spine: list[list[str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """Of the operators."""

    @cached_property
    def part_index(self) -> dict[object, int]:
        """For every part of the network its number."""
        return number_parts(self.network)

    @cached_property
    def unit_of(self) -> dict[int, int]:
        """For every number of a part the unit of a split that it is in."""
        return {part.index: number for number, unit in enumerate(self.network.layers) for part in _parts(unit)}

    def add(self, node: VariableNode) -> str:
        """Its id; the first node of an id stays."""
        self.variables.setdefault(node.id, node)
        return node.id


def trace_network(network: Network, segments: Sequence[tuple[int, int]]) -> Trace:
    """The trace of a network whose stages are the given runs of layers."""
    trace = Trace(network=network, segments=tuple(segments))
    tracers = [
        _StageTracer(trace, build_stage_program(network, first, last), stage)
        for stage, (first, last) in enumerate(segments)
    ]
    sent = ""
    for tracer in tracers:
        sent = tracer.forward(sent)
    returned = ""
    for tracer in reversed(tracers):
        returned = tracer.backward(returned)
    return trace


class _StageTracer:
    """Runs the programs of one stage on names instead of tensors."""

    def __init__(self, trace: Trace, program: StageProgram, stage: int) -> None:
        self.trace, self.program, self.stage = trace, program, stage
        self.values: dict[str, str] = {}
        """For every buffer that holds a value, the id of the value."""
        self.source, self.output = "", ""
        self.layer = _parts(program.layers[0])[0].index
        self.unit: int | None = None
        self.spaces: frozenset[str] = frozenset()
        self.records: dict[str, object] = {}
        """What every operator of the forward is of."""
        self.done: set[str] = set()
        """Operators of the forward whose adjoint has been met."""

    def forward(self, sent: str) -> str:
        """Follow F from what the stage before has sent; what this one sends."""
        if not self.program.is_first:
            self.source = self._receive(sent, self.program.input, f"{sent.split('@')[0]}@{self.stage}")
            self.trace.forward_carries.append(Carry(source=sent, target=self.source))
        for operator in self._instructions(self.program.forward):
            if isinstance(operator, LossAndGrad):
                self._loss(operator)
            else:
                self._forward_operator(self._describe(operator))
        self.output = self.values.get(self.program.output.name, "")
        self._mark_kept()
        return self.output

    def backward(self, returned: str) -> str:
        """Follow B from what the stage after has sent back; what this one sends back."""
        if self.program.grad_output is not None:
            received = self._receive(returned, self.program.grad_output, GRADIENT + self.output)
            self.trace.backward_carries.append(Carry(source=returned, target=received))
        for operator in self._instructions(self.program.backward):
            self._backward_operator(operator)
        return "" if self.program.grad_input is None else self.values[self.program.grad_input.name]

    # Values

    def _receive(self, sent: str, buffer: Variable, identity: str) -> str:
        """A copy of what another stage has sent, in a buffer of this one."""
        node = replace(self.trace.variables[sent], id=identity, stage=self.stage, buffer=buffer, is_kept=False)
        self.values[buffer.name] = self.trace.add(node)
        return identity

    def _instructions(self, program: Program) -> Iterator[Operator]:
        """The operators, with buffers taken and given between them."""
        uses = Counter(name for operator in operators(program) for name in _workspaces(operator))
        self.spaces = frozenset(name for name, count in uses.items() if count == 1)
        for instruction in program:
            if isinstance(instruction, Take | Give):
                self.values.pop(instruction.variable.name, None)
            elif isinstance(instruction, Load):
                self._load(instruction.into)
            else:
                self.layer = self.trace.part_index.get(record_of(instruction), self.layer)
                yield instruction

    def _load(self, buffer: Variable) -> None:
        label = "x" if buffer is self.program.input else "y"
        self.values[buffer.name] = self._add(label, Role.DATA, buffer, layer=None)
        self.source = self.source or label

    def _add(self, identity: str, role: Role, buffer: Variable | None, *, layer: int | None,
             shape: tuple[int | str, ...] | None = None) -> str:  # fmt: skip
        found = shape if shape is not None or buffer is None else symbolic_shape(buffer)
        label = re.sub("@[0-9]+", "", identity)
        return self.trace.add(VariableNode(id=identity, label=label, role=role, stage=self.stage, layer=layer,
                                           shape=found or (), buffer=buffer))  # fmt: skip

    def _parameters(self, described: Described, letters: Sequence[str], prefix: str = "") -> tuple[str, ...]:
        role = Role.PARAMETER_GRADIENT if prefix else Role.PARAMETER
        return tuple(
            self._add(f"{prefix}{letter}{self.layer}", role, None, layer=self.layer, shape=described.shapes[letter])
            for letter in letters
        )

    def _mark_kept(self) -> None:
        """What stands in memory after F and after its output has been sent."""
        program = self.program
        sent = None if program.is_last or program.is_output_kept else program.output.name
        for buffer, value in self.values.items():
            if buffer != sent and buffer != "loss":
                self.trace.variables[value] = replace(self.trace.variables[value], is_kept=True)

    # Operators

    def _describe(self, operator: Operator) -> Described:
        around = Surroundings(network=self.trace.network, values=self.values, spaces=self.spaces)
        return describe(operator, around)

    def _forward_operator(self, described: Described) -> None:
        reads = tuple(self.values[one.name] for one in described.reads)
        reads += self._parameters(described, described.parameters)
        writes = []
        for buffer in described.writes:
            writes.append(self._new(buffer, described.letter))
            self.values[buffer.name] = writes[-1]
        node = self._operator(described, reads, tuple(writes), Phase.FORWARD)
        self.records[node.id] = described.record
        self.trace.forward.append(node)
        self._extend_spine(node)

    def _new(self, buffer: Variable, letter: str = "") -> str:
        """A value in a buffer, named by its letter, else after what the buffer held, or itself."""
        held = self.values.get(buffer.name, buffer.name)
        identity = "o" if letter == "o" else f"{letter}{self.layer}" if letter else held
        while identity in self.trace.variables:  # overwritten in place
            identity += "'"
        return self._add(identity, Role.VALUE, buffer, layer=self.layer)

    def _extend_spine(self, node: OperatorNode) -> None:
        """A part for each unit of a split; the first of a stage begins with what was received."""
        unit = self.trace.unit_of[self.layer]
        if unit != self.unit:
            is_received = self.unit is None and not self.program.is_first
            self.trace.spine.append([self.source] if is_received else [])
            self.unit = unit
        self.trace.spine[-1] += [node.id, *node.writes]

    def _operator(self, described: Described, reads: tuple[str, ...], writes: tuple[str, ...],
                  phase: Phase, of: str | None = None) -> OperatorNode:  # fmt: skip
        place = "" if self.layer is None else f" {self.layer}"
        identity = f"{described.name}{place}" + (" again" if phase is Phase.RECOMPUTED else "")
        while identity in self.trace.names:
            identity += "'"
        self.trace.names.add(identity)
        return OperatorNode(
            id=identity, label=described.label, name=described.name, formula=described.formula, phase=phase,
            stage=self.stage, layer=self.layer, reads=reads, writes=writes, of=of,
        )  # fmt: skip

    def _loss(self, operator: LossAndGrad) -> None:
        """Value and gradient are one instruction, and two operators of the graphs."""
        trace, record = self.trace, self.trace.network.loss
        o, y = self.values[operator.o.name], self.values[operator.targets.name]
        loss = self._add("L", Role.SCALAR, operator.loss, layer=None)
        ends = {"stage": self.stage, "layer": None}
        trace.forward.append(
            OperatorNode(id=LOSS, label="ℓ", name=record.name, formula=f"L = {record.name}(o, y)",
                         phase=Phase.FORWARD, reads=(o, y), writes=(loss,), **ends)  # type: ignore[arg-type]
        )  # fmt: skip
        trace.spine.append([LOSS, loss])
        grad = self._add(GRADIENT + o, Role.GRADIENT, operator.grad_o, layer=trace.variables[o].layer)
        grad_loss = self._add(GRADIENT + loss, Role.SCALAR, operator.loss, layer=None)
        self.values.pop(operator.o.name)
        self.values[operator.grad_o.name] = grad
        trace.backward.append(
            OperatorNode(id=LOSS_GRADIENT, label="ℓ'", name=f"{record.name} gradient",
                         formula=f"∂o = {record.name}'(o, y), run in the forward", phase=Phase.INPUT_GRADIENT,
                         reads=(grad_loss, o, y), writes=(grad,), of=LOSS, **ends)  # type: ignore[arg-type]
        )  # fmt: skip

    def _backward_operator(self, operator: Operator) -> None:
        described = self._describe(operator)
        reads = tuple(self.values[one.name] for one in described.reads)
        reads += self._parameters(described, described.parameters)
        if described.phase is Phase.FORWARD:
            self._recompute(described, reads)
            return
        of = self._forward_of(described)
        writes = []
        for position, buffer in enumerate(described.writes):
            writes.append(self._gradient(buffer, of, position))
            self.values[buffer.name] = writes[-1]
        gradients = self._parameters(described, described.parameter_gradients, GRADIENT)
        again = of.writes if of is not None and described.again else ()
        self.values.update({buffer.name: value for buffer, value in zip(described.again, again, strict=True)})
        self.values.update({buffer.name: self.values[like.name] for buffer, like in described.left})
        name = None if of is None else of.id
        written = (*writes, *gradients, *again)
        self.trace.backward.append(self._operator(described, reads, written, described.phase, name))

    def _gradient(self, buffer: Variable, of: OperatorNode | None, position: int) -> str:
        """The gradient in what the operator of the forward reads; else what the buffer held, changed."""
        if of is not None and position < len(of.reads):
            identity = GRADIENT + of.reads[position]
        else:
            identity = self.values.get(buffer.name, GRADIENT + buffer.name)
        while identity in self.trace.variables:  # a sum of several, or overwritten in place
            identity += "'"
        primal = self.trace.variables.get(identity.removeprefix(GRADIENT).rstrip("'"))
        return self._add(identity, Role.GRADIENT, buffer, layer=primal.layer if primal else self.layer)

    def _recompute(self, described: Described, reads: tuple[str, ...]) -> None:
        """An operator of the forward, once more: it gives the value that it gave then."""
        same = [one for one in self.trace.forward if one.layer == self.layer and one.name == described.name]
        before = next((one for one in same if len(one.writes) == len(described.writes)), None)
        writes = before.writes if before else tuple(self._new(buffer) for buffer in described.writes)
        for buffer, value in zip(described.writes, writes, strict=True):
            self.values[buffer.name] = value
        of = before.id if before else None
        self.trace.backward.append(self._operator(described, reads, writes, Phase.RECOMPUTED, of))

    def _forward_of(self, described: Described) -> OperatorNode | None:
        """The operator of the forward that it is the adjoint of: of the same record, the last one that still waits."""
        same = [one for one in self.trace.forward if self.records.get(one.id, None) == described.record is not None]
        if described.phase is Phase.WEIGHT_GRADIENT:
            return next((one for one in same if one.name == AFFINE), None)
        waiting = [one for one in same if one.id not in self.done]
        if not waiting:
            return None
        self.done.add(waiting[-1].id)
        return waiting[-1]


def _parts(unit: Unit) -> tuple[Weighted, ...]:
    """What has parameters in a unit of a split: the layer itself, or the parts of a block."""
    return unit.weighted


def _workspaces(operator: Operator) -> set[str]:
    """Names of those of an operator; what only one uses holds nothing between them."""
    return {one.name for one in operator if isinstance(one, Variable) and one.category is Category.WORKSPACE}
