"""JSON and DOT of a graph."""

from __future__ import annotations

import json
import re
from typing import Any

from partition.graph.computational import GraphKind
from partition.report.graph.record import graph_dot, graph_record
from tests.report.graph.subjects import subject


def record(*arguments: Any, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(graph_record(subject(*arguments, **changes))))
    return found


def test_nodes_and_edges_have_shapes_and_bytes() -> None:
    found = record(GraphKind.BACKWARD, 3, 2)
    nodes = {node["id"]: node for node in found["nodes"]}
    edges = {(edge["source"], edge["target"]): edge for edge in found["edges"]}
    assert (found["kind"], found["microbatch_size"], found["candidate"]) == ("backward", 63, "pipeline")
    assert nodes["z0"] == {
        "id": "z0", "type": "variable", "label": "z0", "role": "value", "layer": 0, "stage_index": 0,
        "shape": [63, 1024], "kept_bytes": 63 * 1024 * 4,
    }  # fmt: skip
    assert (nodes["gelu 1 again"]["phase"], nodes["h0@1"]["label"]) == ("recomputed", "h0")
    assert edges["∂h0@1", "∂h0"]["carried_bytes"] == 63 * 1024 * 4
    assert edges["z0", "gelu gradient 0"] == {
        "source": "z0", "target": "gelu gradient 0", "kind": "kept", "kept_bytes": 63 * 1024 * 4
    }  # fmt: skip
    kept = [
        sum(node.get("kept_bytes", 0) for node in nodes.values() if node["stage_index"] == stage) for stage in (0, 1)
    ]
    assert [stage["kept_bytes"] for stage in found["stages"]] == kept
    assert {end for ends in edges for end in ends} == nodes.keys()


def test_without_stages_no_device_is_named() -> None:
    found = record(GraphKind.SECOND_ORDER)
    assert found["stages"][0]["device"] is None
    assert found["candidate"] is None
    assert not [edge for edge in found["edges"] if edge["kind"] == "carried"]


def test_dot_has_every_node_in_the_cluster_of_its_stage() -> None:
    of = subject(GraphKind.FORWARD, 3, 2)
    text = graph_dot(of)
    assert text.count("subgraph cluster_") == 2
    assert len(re.findall(r"shape=(?:square|circle)", text)) == len(of.graph.nodes)
    assert text.count(" -> ") == len(of.graph.edges)
    assert '"h0" -> "h0@1" [color="#a01818", penwidth=2, label="252.0 KiB"];' in text
    assert text.count("{") == text.count("}") == 3


def test_a_name_of_quotes_is_escaped() -> None:
    of = subject(GraphKind.FORWARD)
    object.__setattr__(of, "name", 'a "b" \\c')
    assert graph_dot(of).startswith('digraph "a \\"b\\" \\\\c forward" {')
