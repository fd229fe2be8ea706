"""Values are told from buffers, of operators that are known and of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pytest

from partition.config.schema import ModelConfig
from partition.errors import PartitionError
from partition.graph import Layer, Network, StageProgram, build_network, build_stage_program
from partition.graph.computational import GraphKind, Phase, build_graph
from partition.graph.computational import tracing as module
from partition.graph.computational.tracing import trace_network
from partition.graph.program import Activate, ActivationGrad, Affine, Instruction, Program, Variable
from partition.report.graph.layout import lay_out
from partition.report.graph.subject import Subject
from tests.report.graph.test_layout import check


class Scale(NamedTuple):
    """In place."""

    layer: Layer
    z: Variable


class ScaleGrad(NamedTuple):
    layer: Layer
    grad: Variable


class Swish(NamedTuple):
    layer: Layer
    z: Variable
    h: Variable


class SwishGrad(NamedTuple):
    layer: Layer
    kept: Variable
    grad: Variable


def changed(program: Program) -> Iterator[Instruction]:
    """Every pre-activation scaled in place, and another activation than the known one."""
    for instruction in program:
        match instruction:
            case Activate(layer, z, h):
                yield cast(Any, Swish(layer, z, h))
            case ActivationGrad(layer, kept, grad):
                yield cast(Any, SwishGrad(layer, kept, grad))
                yield cast(Any, ScaleGrad(layer, grad))
            case Affine(layer, _, z):
                yield instruction
                if not layer.activation.is_identity:
                    yield cast(Any, Scale(layer, z))
            case _:
                yield instruction


def build_changed(network: Network, first: int, last: int) -> StageProgram:
    program = build_stage_program(network, first, last)
    return replace(program, forward=tuple(changed(program.forward)), backward=tuple(changed(program.backward)))


def network(activation: str, num_hidden: int = 2) -> Network:
    return build_network(ModelConfig(in_features=6, hidden_features=(5,) * num_hidden, out_features=4,
                                     activation=activation))  # fmt: skip


def test_a_buffer_that_is_overwritten_holds_several_values() -> None:
    trace = trace_network(network("tanh"), ((0, 2),))
    chain = [(one.name, one.writes) for one in trace.forward]
    assert chain[:4] == [("affine", ("z0",)), ("tanh", ("h0",)), ("affine", ("z1",)), ("tanh", ("h1",))]
    buffers = {name: node.buffer for name, node in trace.variables.items()}
    assert buffers["z0"] is buffers["h0"]
    assert trace.spine == [
        ["affine 0", "z0", "tanh 0", "h0"], ["affine 1", "z1", "tanh 1", "h1"], ["affine 2", "o"], ["loss", "L"]
    ]  # fmt: skip


def test_what_is_recomputed_is_the_value_of_the_forward() -> None:
    trace = trace_network(network("gelu"), ((0, 2),))
    again = [one for one in trace.backward if one.phase is Phase.RECOMPUTED]
    assert [(one.id, one.reads, one.writes) for one in again] == [
        ("gelu 1 again", ("z1",), ("h1",)), ("gelu 0 again", ("z0",), ("h0",))
    ]  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("segments", [((0, 2),), ((0, 0), (1, 2))])
def test_operators_that_are_not_known_are_in_the_graphs(
    monkeypatch: pytest.MonkeyPatch, activation: str, segments: tuple[tuple[int, int], ...]
) -> None:
    monkeypatch.setattr(module, "build_stage_program", build_changed)
    forward, backward, _ = (build_graph(network(activation), kind, segments) for kind in GraphKind)
    of = {one.id: one for one in (*forward.operators, *backward.operators)}
    assert of["scale 0"].reads == ("z0",)
    assert of["scale 0"].writes == ("z0'",)
    assert (of["swish 0"].reads, of["swish grad 0"].of, of["scale grad 0"].of) == (("z0'",), "swish 0", "scale 0")
    assert of["swish grad 0"].writes == ("∂z0'",)
    assert of["scale grad 0"].writes == ("∂z0",)
    assert "∂z0" in of["weight gradient 0"].reads


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("kind", GraphKind)
def test_operators_that_are_not_known_are_drawn(
    monkeypatch: pytest.MonkeyPatch, kind: GraphKind, activation: str
) -> None:
    monkeypatch.setattr(module, "build_stage_program", build_changed)
    graph = build_graph(network(activation, 20), kind, ((0, 9), (10, 20)))
    drawing = lay_out(Subject(name="new", graph=graph, rows=8, itemsize=4))
    check(drawing)
    assert {box.node.id for box in drawing.boxes if not box.is_ghost} == {node.id for node in graph.nodes}


class Accumulate(NamedTuple):
    """Of no part of the network: a sum whose gradient goes both ways."""

    source: Variable
    into: Variable


def residual(program: Program) -> Iterator[Instruction]:
    """What was activated, added to what comes of it."""
    kept: list[Variable] = []
    for instruction in program:
        yield instruction
        match instruction:
            case Activate(_, _, h):
                kept.append(h)
            case Affine(layer, _, z) if kept and layer.activation.is_identity and layer.index == 1:
                yield cast(Any, Accumulate(kept[0], z))


def build_residual(network: Network, first: int, last: int) -> StageProgram:
    program = build_stage_program(network, first, last)
    return replace(program, forward=tuple(residual(program.forward)))


def test_what_has_no_adjoint_has_no_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build_stage_program", build_residual)
    small = network("relu", 1)
    forward, backward = (build_graph(small, kind) for kind in (GraphKind.FORWARD, GraphKind.BACKWARD))
    added = next(one for one in forward.operators if one.name == "accumulate")
    assert (added.reads, added.writes, added.formula) == (("h0", "o"), ("o'",), "z1 = accumulate(h, o)")
    for graph in (forward, backward):
        check(lay_out(Subject(name="residual", graph=graph, rows=8, itemsize=4)))
    with pytest.raises(PartitionError, match="the second-order graph is not known of a network with 'accumulate'"):
        build_graph(small, GraphKind.SECOND_ORDER)
