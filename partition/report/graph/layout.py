"""A graph on paper: the largest letters with which it fits a page of A4, upright or across.

Where even the smallest legible ones do not fit on one page, it grows by whole rows.
"""

from __future__ import annotations

from partition.graph.computational import GraphKind
from partition.report.graph import labels as lettering
from partition.report.graph.drawing import Drawing, Scale, text_width
from partition.report.graph.lines import bus_lines, edge_lines, past_letters
from partition.report.graph.paper import Paper
from partition.report.graph.placing import placed
from partition.report.graph.slots import Slots
from partition.report.graph.subject import Subject

A4 = (595.0, 842.0)
LEAST_LETTERS = 5.0
"""Points: the smallest letters of the nodes; those beside them are at least nine tenths of it."""
_MOST_LETTERS = 10.0
_FLATTEST = (1.0, 0.85, 0.72, 0.6, 0.5)
"""Heights of a square in widths."""


def lay_out(subject: Subject) -> Drawing:
    """The drawing of a graph."""
    slots = Slots(subject.graph)
    # Kept bytes take room between the levels of the second order, which deep networks do not have.
    for has_bytes in (True, False):
        pages = [_largest(subject, slots, page, has_bytes=has_bytes) for page in (A4, A4[::-1])]
        found = [paper for paper in pages if paper is not None]
        if found:
            return _draw(max(found, key=lambda paper: (round(paper.scale.letters * 2), -len(paper.rows))))
        if subject.graph.kind is not GraphKind.SECOND_ORDER:
            break
    has_bytes = subject.graph.kind is not GraphKind.SECOND_ORDER
    return _draw(Paper(subject, slots, A4, _scale(subject, LEAST_LETTERS, 0.6, has_bytes=has_bytes)))


def _largest(subject: Subject, slots: Slots, page: tuple[float, float], *, has_bytes: bool) -> Paper | None:
    """The paper with the largest letters that fit on one page."""
    for fifths in range(int(_MOST_LETTERS * 5), int(LEAST_LETTERS * 5) - 1, -1):
        for flat in _FLATTEST:
            paper = Paper(subject, slots, page, _scale(subject, fifths / 5, flat, has_bytes=has_bytes))
            if paper.fits:
                return paper
    return None


def _scale(subject: Subject, letters: float, flat: float, *, has_bytes: bool) -> Scale:
    """Sizes that go with letters of a size; `flat` is the height of a square in widths."""
    graph = subject.graph
    longest = max(text_width(node.label, letters) for node in graph.nodes)
    width = max(longest + 0.35 * letters, 1.6 * letters)
    height = max(flat * width, 1.5 * letters)
    captions = max(0.88 * LEAST_LETTERS, min(7.0, 0.82 * letters))
    of_captions = 1.22 * captions + 2.5
    gap = {
        GraphKind.FORWARD: 0.5 * height,
        GraphKind.BACKWARD: max(0.45 * height, of_captions),
        GraphKind.SECOND_ORDER: max(0.34 * height, of_captions if has_bytes else 0.0),
    }[graph.kind]
    return Scale(column=width * 1.3, level=height + gap, node_width=width, node_height=height, letters=letters,
                 captions=captions, has_bytes=has_bytes)  # fmt: skip


def _draw(paper: Paper) -> Drawing:
    boxes = paper.boxes()
    lines = [*edge_lines(paper, boxes), *(bus_lines(paper, boxes) if paper.hub else ())]
    grounds = list(lettering.bands(paper, boxes)) if paper.is_staged else []
    fixed = [*lettering.carried(paper, lines), *lettering.stages(paper, grounds)]
    beside = placed(list(lettering.captions(paper, boxes)), fixed, boxes.values(), lines, paper.scale, paper.page[0])
    lines = list(past_letters(paper, boxes, lines, [*beside, *fixed]))
    labels = [*lettering.names(paper, boxes), *beside, *fixed]
    return Drawing(
        subject=paper.subject, width=paper.page[0], height=paper.height, scale=paper.scale,
        boxes=tuple(boxes.values()), lines=tuple(lines), labels=tuple(labels), bands=tuple(grounds),
    )  # fmt: skip
