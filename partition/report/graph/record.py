"""A graph as a JSON record, and as DOT for Graphviz."""

from __future__ import annotations

from partition.graph.computational import EdgeKind, OperatorNode, Role, VariableNode
from partition.report.graph.subject import KIND_WORDS, Subject
from partition.units import format_bytes


def graph_record(subject: Subject) -> dict[str, object]:
    """Nodes and edges with shapes and bytes, as JSON has them."""
    graph = subject.graph
    return {
        "kind": graph.kind.value,
        "candidate": subject.candidate,
        "microbatch_size": subject.rows,
        "stages": [_stage_record(subject, stage) for stage in range(graph.num_stages)],
        "nodes": [
            *(_operator_record(node) for node in graph.operators),
            *(_variable_record(subject, node) for node in graph.variables),
        ],
        "edges": _edge_records(subject),
    }


def _stage_record(subject: Subject, stage: int) -> dict[str, object]:
    first, last = subject.graph.segments[stage]
    device = subject.devices[stage] if subject.devices else None
    kept = subject.stage_kept_bytes(stage)
    return {"stage_index": stage, "device": device, "first_layer": first, "last_layer": last, "kept_bytes": kept}


def _operator_record(node: OperatorNode) -> dict[str, object]:
    return {
        "id": node.id, "type": "operator", "label": node.label, "name": node.name, "formula": node.formula,
        "phase": node.phase.value, "layer": node.layer, "stage_index": node.stage,
    }  # fmt: skip


def _variable_record(subject: Subject, node: VariableNode) -> dict[str, object]:
    shape = [subject.rows if axis == "B" else axis for axis in node.shape]
    return {
        "id": node.id, "type": "variable", "label": node.label, "role": node.role.value, "layer": node.layer,
        "stage_index": node.stage, "shape": shape, "kept_bytes": subject.kept_bytes(node),
    }  # fmt: skip


def _edge_records(subject: Subject) -> list[dict[str, object]]:
    variables = {node.id: node for node in subject.graph.variables}
    carried = {(one.source, one.target): subject.carried_bytes(one) for one in subject.graph.carries}
    records = []
    for edge in subject.graph.edges:
        record: dict[str, object] = {"source": edge.source, "target": edge.target, "kind": edge.kind.value}
        if edge.kind is EdgeKind.CARRIED:
            record["carried_bytes"] = carried[edge.source, edge.target]
        if edge.kind is EdgeKind.KEPT:
            record["kept_bytes"] = subject.kept_bytes(variables[edge.source])
        records.append(record)
    return records


def graph_dot(subject: Subject) -> str:
    """The graph for Graphviz: a cluster for each stage."""
    graph = subject.graph
    lines = [
        f"digraph {_quoted(f'{subject.name} {KIND_WORDS[graph.kind]}')} {{",
        f"  label={_quoted(subject.title)}; labelloc=t; rankdir=LR; fontname=Helvetica;",
        "  node [fontname=Helvetica, fontsize=10]; edge [fontname=Helvetica, fontsize=8, arrowsize=0.6];",
    ]
    for stage in range(graph.num_stages):
        device = f", {subject.devices[stage]}" if subject.devices else ""
        lines += [f"  subgraph cluster_{stage} {{", f"    label={_quoted(f'stage {stage}{device}')};"]
        lines += [f"    {_dot_node(subject, node)}" for node in graph.nodes if node.stage == stage]
        lines.append("  }")
    lines += [f"  {line}" for line in _dot_edges(subject)]
    return "\n".join([*lines, "}", ""])


def _dot_node(subject: Subject, node: VariableNode | OperatorNode) -> str:
    if isinstance(node, OperatorNode):
        return f"{_quoted(node.id)} [shape=circle, label={_quoted(node.label)}, tooltip={_quoted(node.formula)}];"
    words = [node.label, *[node.shape_text] * bool(node.shape)]
    style = ""
    if node.is_kept:
        words.append(format_bytes(subject.kept_bytes(node)))
        style = ', style=filled, fillcolor="#17365c", fontcolor=white'
    elif node.role in (Role.PARAMETER, Role.DIRECTION):
        style = ', style=filled, fillcolor="#f6dfb5"'
    return f"{_quoted(node.id)} [shape=square, label={_quoted(chr(10).join(words))}{style}];"


def _dot_edges(subject: Subject) -> list[str]:
    lines = []
    for record in _edge_records(subject):
        label = (
            f", label={_quoted(format_bytes(int(str(record['carried_bytes']))))}" if "carried_bytes" in record else ""
        )
        style = {"kept": " [style=dashed]", "carried": f' [color="#a01818", penwidth=2{label}]'}.get(
            str(record["kind"]), ""
        )
        lines.append(f"{_quoted(str(record['source']))} -> {_quoted(str(record['target']))}{style};")
    return lines


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
