"""A graph as tables for the terminal."""

from __future__ import annotations

import textwrap
from itertools import groupby

from partition.graph.computational import GraphKind, OperatorNode, Phase, VariableNode
from partition.report.graph.subject import Subject
from partition.report.table import counted, table
from partition.units import format_bytes

_WIDTH = 100
_NOTES = {
    GraphKind.FORWARD: "Kept: of a microbatch, from the forward of a stage to its backward.",
    GraphKind.BACKWARD: (
        "∂v is ∂J/∂v and has the shape of v. What is done `again` is an operator of the forward, on what was kept."
    ),
    GraphKind.SECOND_ORDER: (
        "The Hessian of J times a direction v of the weights, as the backward of the backward: uv is the change of v "
        "along it (the cotangent of ∂v), Hv the cotangent of v; HW and Hb are the result."
    ),
}


def graph_text(subject: Subject) -> str:
    """The operators layer by layer, runs of equal layers in one."""
    graph = subject.graph
    counts = f"{counted(len(graph.variables), 'variable')}, {counted(len(graph.operators), 'operator')}, " + counted(
        len(graph.edges), "edge"
    )
    parts = [f"{textwrap.fill(subject.title, _WIDTH)}\n{counts}", _operators(subject)]
    if graph.kind is not GraphKind.SECOND_ORDER:
        parts.append(_stages(subject))
    if graph.carries:
        parts.append(_boundaries(subject))
    return "\n\n".join([*parts, textwrap.fill(_NOTES[graph.kind], _WIDTH)])


def _operators(subject: Subject) -> str:
    is_staged, has_kept = subject.graph.num_stages > 1, subject.graph.kind is GraphKind.FORWARD
    header = ["layer", "operator", "computes", "shape", "stage", "kept"]
    lines = _lines(subject)
    shown = [True, True, True, True, is_staged, has_kept]
    rows = [[cell for cell, is_shown in zip(line, shown, strict=True) if is_shown] for line in lines]
    names = [cell for cell, is_shown in zip(header, shown, strict=True) if is_shown]
    return table(names, rows, left=(0, 1, 2, 3))


def _lines(subject: Subject) -> list[list[str]]:
    variables = {node.id: node for node in subject.graph.variables}
    of_layer: dict[tuple[bool, int | None], list[list[str]]] = {}
    for one in subject.graph.operators:
        key = (one.phase is Phase.SECOND, one.layer)
        of_layer.setdefault(key, []).append(_cells(subject, one, variables))
    lines = []
    for cells, group in groupby(of_layer.items(), key=lambda item: item[1]):
        layers = [layer for (_, layer), _ in group]
        lines += [["" if index else _span(layers), *line] for index, line in enumerate(cells)]
    return lines


def _span(layers: list[int | None]) -> str:
    known = [layer for layer in layers if layer is not None]
    if not known:
        return ""
    return str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}, each"


def _cells(subject: Subject, operator: OperatorNode, variables: dict[str, VariableNode]) -> list[str]:
    written = [variables[name] for name in operator.writes]
    shapes = ", ".join(node.shape_text or "1" for node in written)
    kept = sum(subject.kept_bytes(node) for node in written)
    read = sum(subject.kept_bytes(variables[name]) for name in operator.reads if _enters(variables[name]))
    total = kept + read
    name = f"{operator.name} again" if operator.id.rstrip("'").endswith(" again") else operator.name
    return [name, operator.formula, shapes, str(operator.stage), format_bytes(total) if total else ""]


def _enters(node: VariableNode) -> bool:
    """Whether no operator of its stage has computed it: the input, or what was received."""
    return node.id == "x" or "@" in node.id


def _stages(subject: Subject) -> str:
    """What each stage keeps of a microbatch, and in what."""
    rows = []
    for stage, (first, last) in enumerate(subject.graph.segments):
        kept = [node.label for node in subject.graph.kept if node.stage == stage]
        shown = ", ".join(kept if len(kept) <= 8 else [*kept[:4], "...", *kept[-3:]])
        layers = str(first) if first == last else f"{first}-{last}"
        device = [subject.devices[stage]] if subject.devices else []
        rows.append([str(stage), *device, layers, shown, format_bytes(subject.stage_kept_bytes(stage))])
    header = ["stage", *["device"] * bool(subject.devices), "layers", "keeps", "bytes"]
    return table(header, rows, left=range(len(header) - 1))


def _boundaries(subject: Subject) -> str:
    variables = {node.id: node for node in subject.graph.variables}
    rows = []
    for carry in subject.graph.carries:
        source, target = variables[carry.source], variables[carry.target]
        stages = f"{source.stage} -> {target.stage}"
        rows.append([source.label, stages, source.shape_text, format_bytes(subject.carried_bytes(carry))])
    return table(["carried", "stages", "shape", "bytes"], rows, left=(0, 1, 2))
