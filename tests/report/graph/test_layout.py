"""Drawings are legible: no two labels overlap, no line runs through a node, and 60 layers fit a page of A4."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partition.graph.computational import EdgeKind, GraphKind
from partition.report.graph.drawing import Drawing, Line
from partition.report.graph.layout import A4, LEAST_LETTERS, lay_out
from partition.report.graph.lines import is_clear
from tests.report.graph.subjects import (
    BLOCKS,
    Rectangle,
    lines_through_letters,
    node_rectangles,
    of_blocks,
    overlaps,
    rectangle,
    subject,
)

SIZES = [(1, 1), (2, 2), (3, 1), (3, 3), (7, 2), (12, 3), (60, 1), (60, 4), (60, 60)]
MODELS: list[dict[str, Any]] = [
    {},
    {"activation": "relu", "bias": False},
    {"activation": "identity"},
    {"l2_penalty": 0.0, "loss": "mse"},
    {"width": 100_000},
]


def check(drawing: Drawing) -> None:
    labels = [rectangle(label) for label in drawing.labels]
    assert not list(overlaps(labels))
    nodes = node_rectangles(drawing)
    assert not list(overlaps(nodes))
    beside = [rectangle(label) for label in drawing.labels if not label.is_inside]
    of_both = [pair for pair in overlaps([*nodes, *beside], 0.2) if (pair[0] in beside) is not (pair[1] in beside)]
    assert not of_both
    assert not lines_through_letters(drawing)
    for line in drawing.lines:
        (left, right), (low, high) = ((min(of) - 30, max(of) + 30) for of in zip(*line.points, strict=True))
        near = [box for box in drawing.boxes if left < box.x < right and low < box.y < high]
        others = [box for box in near if box.node.id not in line.ends]
        assert line.is_bus or is_clear(line.points, others, drawing.scale), line.ends
    for one in [*labels, *nodes]:
        assert 0 < one.left < one.right < drawing.width
        assert 0 < one.bottom < one.top < drawing.height


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", GraphKind)
def test_nothing_overlaps(kind: GraphKind, size: tuple[int, int]) -> None:
    check(lay_out(subject(kind, *size)))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", GraphKind)
def test_nothing_overlaps_in_other_models(kind: GraphKind, model: dict[str, Any]) -> None:
    for num_stages in (1, 2):
        check(lay_out(subject(kind, 5, num_stages, **model)))
    check(lay_out(subject(kind, 23, 3, **model)))


@pytest.mark.parametrize("num_stages", [1, 2, 3])
@pytest.mark.parametrize("kind", GraphKind)
def test_nothing_overlaps_in_blocks(kind: GraphKind, num_stages: int) -> None:
    check(lay_out(of_blocks(kind, num_stages=num_stages)))


GATED = ({"linear": 128}, *[{"residual": {"norm": "rms_norm", "swiglu": 192}}] * 6, {"norm": "rms_norm"})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", GraphKind)
def test_nothing_overlaps_in_gated_blocks(kind: GraphKind, bias: bool) -> None:
    check(lay_out(subject(kind, 9, 2, blocks=GATED, bias=bias, l2_penalty=0.0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", GraphKind)
def test_nothing_overlaps_in_sixty_blocks(kind: GraphKind) -> None:
    """More than a page of them, and whatever stands between their layers."""
    check(lay_out(of_blocks(kind, [BLOCKS[1 + number % 3] for number in range(59)], 4)))


@pytest.mark.parametrize("kind", GraphKind)
def test_a_residual_runs_beside_the_chain_that_it_leads_past(kind: GraphKind) -> None:
    """Apart from every other line of its row, and apart from the letters beside the chain."""
    drawing = lay_out(of_blocks(kind))
    sums = {node.id for node in drawing.subject.graph.operators if node.label == "+" and node.layer is not None}
    lines = [line for line in drawing.lines if set(line.ends) & sums and len(line.points) == 6]
    assert len(lines) >= 3
    along = {(line.points[2][1], line.points[2][0], line.points[3][0]) for line in lines}
    assert len(along) == len(lines)
    letters = [rectangle(label) for label in drawing.labels]
    for y, *ends in along:
        assert not [
            one for one in letters if one.bottom < y < one.top and min(ends) < one.right and one.left < max(ends)
        ]


@pytest.mark.parametrize("num_stages", [1, 4])
@pytest.mark.parametrize("kind", GraphKind)
def test_sixty_layers_fit_a_page(kind: GraphKind, num_stages: int) -> None:
    drawing = lay_out(subject(kind, 60, num_stages))
    assert drawing.width in A4
    assert drawing.height <= A4[1 - A4.index(drawing.width)]
    assert min(label.size for label in drawing.labels if label.is_inside) >= LEAST_LETTERS
    assert min(label.size for label in drawing.labels) >= 0.88 * LEAST_LETTERS


def test_more_than_a_page_grows_and_keeps_its_letters() -> None:
    drawing = lay_out(subject(GraphKind.SECOND_ORDER, 90))
    assert (drawing.width, drawing.height > A4[1], drawing.scale.letters) == (A4[0], True, LEAST_LETTERS)
    check(drawing)


@pytest.mark.parametrize("num_layers", [3, 60])
def test_the_input_is_lower_left_and_the_objective_upper_right(num_layers: int) -> None:
    drawing = lay_out(subject(GraphKind.FORWARD, num_layers))
    places = {box.node.id: (box.x, box.y) for box in drawing.boxes if not box.is_ghost}
    assert places["x"][0] == pytest.approx(min(x for x, _ in places.values()))
    assert places["J"][0] == pytest.approx(max(x for x, _ in places.values()))
    assert places["x"][1] < places["J"][1] == pytest.approx(max(y for _, y in places.values()))


def test_every_edge_and_node_is_drawn() -> None:
    for kind in GraphKind:
        of = subject(kind, 60, 4)
        drawing = lay_out(of)
        assert {box.node.id for box in drawing.boxes if not box.is_ghost} == {node.id for node in of.graph.nodes}
        drawn = {line.ends for line in drawing.lines if not line.is_bus}
        hub = {GraphKind.FORWARD: "penalty", GraphKind.BACKWARD: "∂s"}.get(kind)
        edges = {(edge.source, edge.target) for edge in of.graph.edges}
        left = edges - drawn
        on_bus = {ends for ends in edges if ends[0 if kind is GraphKind.BACKWARD else 1] == hub}
        assert left == on_bus
        assert len(on_bus) == (60 if hub else 0)


def test_bytes_stand_beside_what_is_kept_and_carried() -> None:
    of = subject(GraphKind.BACKWARD, 3, 3, activation="relu")
    drawing = lay_out(of)
    texts = [label.text for label in drawing.labels if not label.is_inside]
    # x, h0 and its copy, h1 and its copy; twice a gradient carried; the gradient of the outputs; shapes apart.
    assert texts.count("252.0 KiB") == 4 + 2
    assert (texts.count("192.9 KiB"), texts.count("2.5 KiB")) == (1, 1)
    assert {"stage 0, simulated:0", "stage 1, simulated:1", "stage 2, simulated:2"} <= set(texts)
    assert len({band.stage for band in drawing.bands}) == 3


def test_the_second_order_has_the_bytes_of_what_is_kept_where_there_is_room() -> None:
    texts = [label.text for label in lay_out(subject(GraphKind.SECOND_ORDER, 3)).labels]
    assert (texts.count("252.0 KiB"), texts.count("192.9 KiB"), texts.count("2.5 KiB")) == (2, 1, 1)


def test_overlaps_are_found() -> None:
    """What the other tests look for."""
    one, beside, over = Rectangle("a", 0, 0, 2, 2), Rectangle("b", 2, 0, 4, 2), Rectangle("c", 1, 1, 3, 3)
    assert list(overlaps([one, beside])) == []
    assert len(list(overlaps([beside, over, one]))) == 2
    drawing = lay_out(subject(GraphKind.FORWARD))
    box = drawing.boxes[0]
    assert not is_clear([(box.x - 50, box.y), (box.x + 50, box.y)], [box], drawing.scale)
    label = next(one for one in drawing.labels if not one.is_inside)
    through = Line(((label.x - 9, label.y - 9), (label.x + 9, label.y + 9)), EdgeKind.READ, ends=("a", "b"))
    assert lines_through_letters(replace(drawing, lines=(through,))) == [(label.text, ("a", "b"))]
    above = box.y + drawing.scale.node_height
    assert is_clear([(box.x - 50, above), (box.x + 50, above)], [box], drawing.scale)


@pytest.mark.parametrize("kind", ["FORWARD", "BACKWARD"])
def test_the_order_of_nodes_is_no_sets(kind: str) -> None:
    """Strings hash anew in every process, so what was placed in a set's order made another file in every run."""
    code = (
        "from tests.report.graph.test_layout import *\n"
        f"print([box.node.id for box in lay_out(subject(GraphKind.{kind})).boxes])"
    )
    orders = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "3")
    ]
    assert orders[0] == orders[1]
    assert "'y'" in orders[0]
