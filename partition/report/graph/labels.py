"""The letters of a drawing: names of nodes, shapes and bytes beside them, stages, the title and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from partition.graph.computational import EdgeKind, GraphKind, Role, VariableNode
from partition.report.graph.drawing import Band, Box, Label, Line, text_width
from partition.report.graph.lines import Boxes
from partition.report.graph.paper import Paper
from partition.report.graph.placing import Beside
from partition.units import format_bytes


def names(paper: Paper, boxes: Boxes) -> Iterator[Label]:
    """In every node its own."""
    for box in boxes.values():
        is_light = isinstance(box.node, VariableNode) and box.node.is_kept and not box.is_ghost
        yield Label(box.node.label, box.x, box.y, paper.scale.letters, is_light=is_light, is_inside=True)


def captions(paper: Paper, boxes: Boxes) -> Iterator[Beside]:
    """Shapes and kept bytes; a drawing of the second order has room for the bytes at most."""
    for (name, _), box in boxes.items():
        if isinstance(box.node, VariableNode) and not box.is_ghost:
            if paper.graph.kind is not GraphKind.SECOND_ORDER:
                for label in _beside(paper, box.node, box, paper.slots.of[name].level):
                    yield Beside(label, box)
            elif box.node.is_kept and paper.scale.has_bytes:
                y = box.y - paper.scale.node_height / 2 - 0.65 * paper.scale.line
                text = format_bytes(paper.subject.kept_bytes(box.node))
                yield Beside(Label(text, box.x, y, paper.scale.captions), box)


def _beside(paper: Paper, node: VariableNode, box: Box, level: int) -> Iterator[Label]:
    """Over what stands high, under what stands low."""
    scale = paper.scale
    half, kept = scale.node_height / 2, [format_bytes(paper.subject.kept_bytes(node))] * node.is_kept
    shape = [node.shape_text] * bool(node.shape)
    over, under = (shape, kept) if level >= 1 else ([], kept)
    if paper.graph.kind is GraphKind.FORWARD:
        over, under = (shape, []) if level >= 1 else ([], [*shape, *kept])
        if node.role is Role.PARAMETER and len(node.shape) == 2:
            # A line over that of the bias beside it.
            y = box.y + half + 1.55 * scale.line
            yield Label(node.shape_text, box.x - scale.node_width / 2, y, scale.captions, False)
            return
    for text in over:
        yield Label(text, box.x, box.y + half + 0.6 * scale.line, scale.captions)
    if level == 0 and paper.graph.kind is GraphKind.BACKWARD and "∂" + node.id in paper.slots.of:
        # The line from the gradient over it passes on the left.
        for text in under:
            yield Label(text, box.x - 0.4 * scale.node_width, box.y - half - 0.65 * scale.line, scale.captions, False)
        return
    for number, text in enumerate(under):
        yield Label(text, box.x, box.y - half - (number + 0.65) * scale.line, scale.captions)


def carried(paper: Paper, lines: Sequence[Line]) -> Iterator[Label]:
    """Over every line that crosses a boundary its bytes."""
    numbers = {(one.source, one.target): paper.subject.carried_bytes(one) for one in paper.graph.carries}
    for line in lines:
        if line.kind is EdgeKind.CARRIED:
            (x0, y0), (x1, y1) = line.points[0], line.points[-1]
            y = (y0 + y1) / 2 + 0.85 * paper.scale.captions
            yield Label(format_bytes(numbers[line.ends]), (x0 + x1) / 2, y, paper.scale.captions)


def bands(paper: Paper, boxes: Boxes) -> Iterator[Band]:
    """The ground of every stage in every row that has a part of it."""
    half = 0.5 * paper.scale.column - 0.3
    places: dict[tuple[int, int], list[float]] = {}
    for box in boxes.values():
        places.setdefault((box.row, box.node.stage), []).append(box.x)
    for (index, stage), of_stage in sorted(places.items()):
        row = paper.rows[index]
        bottom = row.bottom + row.lowest * paper.scale.level - paper.below + 1
        top = row.bottom + row.highest * paper.scale.level + paper.above - 1
        yield Band(stage, min(of_stage) - half, max(of_stage) + half, bottom, top)


def stages(paper: Paper, grounds: Sequence[Band]) -> Iterator[Label]:
    """On every ground as much of its stage's name as there is room for."""
    size = paper.scale.captions
    for band in grounds:
        device = f", {paper.subject.devices[band.stage]}" if paper.subject.devices else ""
        for text in (f"stage {band.stage}{device}", f"stage {band.stage}", str(band.stage)):
            if text_width(text, size) <= band.right - band.left - 4:
                yield Label(text, band.left + 2, band.top - 0.75 * size, size, False)
                break
