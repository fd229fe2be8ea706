"""The forward and the backward graph of a network on its stages, cut from its trace and closed by the penalty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from partition.graph.computational.nodes import (
    Carry,
    ComputationalGraph,
    GraphKind,
    OperatorNode,
    Phase,
    Role,
    VariableNode,
)
from partition.graph.computational.second_order import second_order
from partition.graph.computational.tracing import Trace, trace_network
from partition.graph.network import Network

PENALTY, OBJECTIVE, OBJECTIVE_GRADIENT = "penalty", "objective", "objective gradient"


def build_graph(
    network: Network, kind: GraphKind, segments: Sequence[tuple[int, int]] | None = None
) -> ComputationalGraph:
    """One of the three graphs of a network; `segments` are the first and last layers of its stages (default: one).

    Example: `build_graph(network, GraphKind.FORWARD, [(0, 1), (2, 3)])`.
    """
    trace = trace_network(network, segments or ((0, network.num_layers - 1),))
    if kind is GraphKind.FORWARD:
        return _cut(trace, kind, [*trace.forward, *_objective(trace)], trace.forward_carries)
    if kind is GraphKind.BACKWARD:
        return _cut(trace, kind, _backward(trace), trace.backward_carries)
    operators, carries = second_order(trace)
    return _cut(trace, kind, operators, carries)


def _objective(trace: Trace) -> list[OperatorNode]:
    """J = L + s, and s = lambda/2 times the squares of all weights; without a penalty J is L."""
    stage = len(trace.segments) - 1
    _scalars(trace, ("s", "J"), stage)
    weights = tuple(name for name, node in trace.variables.items() if _is_weight(node))
    penalised = trace.network.l2_penalty > 0
    squares = f"s = λ/2 Σ ‖W‖², λ = {trace.network.l2_penalty:g}"
    penalty = _end(PENALTY, "‖²", "penalty", squares, stage, weights, ("s",))
    terms = ("L", "s") if penalised else ("L",)
    total, label = (f"J = {' + '.join(terms)}", "+" if penalised else "=")
    objective = _end(OBJECTIVE, label, "objective", total, stage, terms, ("J",))
    trace.spine[-1] += [OBJECTIVE, "J"]
    return [penalty] * penalised + [objective]


def _backward(trace: Trace) -> list[OperatorNode]:
    """∂J = 1, ∂L = 1 and ∂s = 1, then what the stages do."""
    stage = len(trace.segments) - 1
    has_penalty = trace.network.l2_penalty > 0
    _scalars(trace, ("∂J", *("∂s",) * has_penalty), stage)
    writes = ("∂L", *("∂s",) * has_penalty)
    formula = "∂L = ∂J = 1" + (",  ∂s = ∂J = 1" if has_penalty else "")
    label = "+'" if has_penalty else "='"
    begin = _end(OBJECTIVE_GRADIENT, label, "objective gradient", formula, stage, ("∂J",), writes)
    trace.spine[-1] += [OBJECTIVE, "J"]
    return [begin, *map(_with_penalty if has_penalty else _as_it_is, trace.backward)]


def _with_penalty(operator: OperatorNode) -> OperatorNode:
    """The λ W of a weight gradient is that of ∂s."""
    if operator.phase is not Phase.WEIGHT_GRADIENT:
        return operator
    return replace(operator, reads=(*operator.reads, "∂s"))


def _as_it_is(operator: OperatorNode) -> OperatorNode:
    return operator


def _scalars(trace: Trace, names: Iterable[str], stage: int) -> None:
    for name in names:
        trace.add(VariableNode(id=name, label=name, role=Role.SCALAR, stage=stage, layer=None, shape=()))


def _end(identity: str, label: str, name: str, formula: str, stage: int, reads: tuple[str, ...],
         writes: tuple[str, ...]) -> OperatorNode:  # fmt: skip
    phase = Phase.FORWARD if identity in (PENALTY, OBJECTIVE) else Phase.INPUT_GRADIENT
    of = OBJECTIVE if identity == OBJECTIVE_GRADIENT else None
    return OperatorNode(id=identity, label=label, name=name, formula=formula, phase=phase, stage=stage, layer=None,
                        reads=reads, writes=writes, of=of)  # fmt: skip


def _is_weight(node: VariableNode) -> bool:
    return node.role is Role.PARAMETER and node.id.startswith("W")


def _cut(
    trace: Trace, kind: GraphKind, operators: Sequence[OperatorNode], carries: Sequence[Carry]
) -> ComputationalGraph:
    """The graph of some operators, with the variables that they and the boundaries touch."""
    touched = [name for operator in operators for name in (*operator.reads, *operator.writes)]
    touched += [name for carry in carries for name in (carry.source, carry.target)]
    return ComputationalGraph(
        kind=kind,
        segments=trace.segments,
        variables=tuple(trace.variables[name] for name in dict.fromkeys(touched)),
        operators=tuple(operators),
        carries=tuple(carries),
        spine=tuple(map(tuple, trace.spine)),
        kept=tuple(node for node in trace.variables.values() if node.is_kept),
    )
