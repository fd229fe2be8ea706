"""Graphs to be drawn, and what must not overlap in a drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from partition.config.schema import ModelConfig
from partition.graph import build_network
from partition.graph.computational import GraphKind, build_graph
from partition.report.graph import Subject
from partition.report.graph.drawing import Drawing, Label, text_width


def subject(kind: GraphKind, num_layers: int = 3, num_stages: int = 1, width: int = 1024, **changes: Any) -> Subject:
    keys: dict[str, Any] = {"in_features": 784, "hidden_features": (width,) * (num_layers - 1), "out_features": 10,
                            "activation": "gelu", "l2_penalty": 1e-4, **changes}  # fmt: skip
    if "blocks" in keys:
        del keys["hidden_features"]
    network = build_network(ModelConfig(**keys))
    ends = [num_layers * stage // num_stages for stage in range(num_stages + 1)]
    segments = [(first, end - 1) for first, end in pairwise(ends)]
    devices = tuple(f"simulated:{stage}" for stage in range(num_stages)) if num_stages > 1 else ()
    return Subject(name="mnist", graph=build_graph(network, kind, segments), rows=63, itemsize=4, devices=devices,
                   candidate="pipeline" if num_stages > 1 else None)  # fmt: skip


BLOCKS: tuple[dict[str, Any], ...] = (
    {"linear": 128, "dropout": 0.1},
    {"residual": {"norm": "layer_norm", "hidden": 256, "dropout": 0.1}},
    {"residual": {"norm": "rms_norm", "swiglu": 96}},
    {"residual": {"hidden": 64, "activation": "relu"}},
    {"norm": "layer_norm"},
)


def of_blocks(kind: GraphKind, blocks: Sequence[dict[str, Any]] = BLOCKS, num_stages: int = 1) -> Subject:
    return subject(kind, len(blocks) + 1, num_stages, blocks=tuple(blocks))


class Rectangle(NamedTuple):
    text: str
    left: float
    bottom: float
    right: float
    top: float


def rectangle(label: Label) -> Rectangle:
    """What a label covers: capitals are 0.73 of the letters' size, and what hangs under the line 0.24."""
    width = text_width(label.text, label.size)
    left = label.x - width / 2 if label.is_centred else label.x
    return Rectangle(label.text, left, label.y - 0.5 * label.size, left + width, label.y + 0.5 * label.size)


def overlaps(rectangles: Sequence[Rectangle], tolerance: float = 0.0) -> Iterator[tuple[Rectangle, Rectangle]]:
    """Every two that share a place; they are looked for from the left to the right."""
    ordered = sorted(rectangles, key=lambda one: one.left)
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if other.left >= one.right - tolerance:
                break
            if min(one.top, other.top) - max(one.bottom, other.bottom) > tolerance:
                yield one, other


def lines_through_letters(drawing: Drawing) -> list[tuple[str, tuple[str, str]]]:
    """Every label beside a node, on a line or over a stage, with the ends of a line that runs through its capitals."""
    found = []
    for label in drawing.labels:
        if not label.is_inside:
            half_height = 0.36 * label.size
            whole = rectangle(label)
            letters = whole._replace(bottom=label.y - half_height, top=label.y + half_height)
            found += [(label.text, line.ends) for line in drawing.lines if _is_through(line.points, letters)]
    return found


def _is_through(points: Sequence[tuple[float, float]], letters: Rectangle) -> bool:
    """Looked for point by point, a quarter of a point apart, where the line is near at all."""
    (left, right), (low, high) = ((min(of), max(of)) for of in zip(*points, strict=True))
    if left > letters.right or right < letters.left or low > letters.top or high < letters.bottom:
        return False
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = int(4 * max(abs(x1 - x0), abs(y1 - y0))) + 1
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            if letters.left < x < letters.right and letters.bottom < y < letters.top:
                return True
    return False


def node_rectangles(drawing: Drawing) -> list[Rectangle]:
    half_height = drawing.scale.node_height / 2
    found = []
    for box in drawing.boxes:
        half_width = drawing.scale.node_width / 2 if hasattr(box.node, "shape") else half_height
        found.append(
            Rectangle(box.node.id, box.x - half_width, box.y - half_height, box.x + half_width, box.y + half_height)
        )
    return found
