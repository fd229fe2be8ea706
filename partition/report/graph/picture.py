"""A laid-out graph drawn by matplotlib, in SVG or PNG; everything stays apart in grey print too.

Kept variables are dark with white letters, parameters and data are tinted, results are framed twice as thick; reads of
what an earlier pass left are dashed, what crosses a boundary is thick; stages are bands that alternate in lightness.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from partition.errors import PartitionError
from partition.graph.computational import EdgeKind, GraphKind, OperatorNode, Role, VariableNode
from partition.report.graph.drawing import Box, Drawing, Label, Line, text_width
from partition.report.graph.layout import lay_out
from partition.report.graph.paper import MARGIN
from partition.report.graph.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
MOST_DRAWN = 20_000
"""Nodes of the largest graph that is drawn."""

_KEPT = "#17365c"
_FILLS = {
    Role.DATA: "#dfe7f1",
    Role.PARAMETER: "#f6dfb5",
    Role.VALUE: "#ffffff",
    Role.SCALAR: "#ffffff",
    Role.GRADIENT: "#ffffff",
    Role.PARAMETER_GRADIENT: "#e79a55",
    Role.DIRECTION: "#f6dfb5",
    Role.TANGENT: "#ffffff",
    Role.CURVATURE: "#dcefdc",
    Role.PARAMETER_CURVATURE: "#e79a55",
}
_RESULTS = (Role.PARAMETER_GRADIENT, Role.PARAMETER_CURVATURE)
_STAGES = ("#e6eef9", "#f0cfb4", "#e3f2e3", "#d2c6e2")
"""Grounds of stages in turn; neighbours differ in lightness as well."""
_LINES = {EdgeKind.READ: "#333333", EdgeKind.WRITE: "#333333", EdgeKind.KEPT: "#5a6b85", EdgeKind.CARRIED: "#a01818"}
_BUS = "#8a6d1d"
_GHOST = "#f7f7f7"
_DASHED = (0, (2.4, 1.4))
_DOTTED = (0, (1.2, 1.2))
_DOTS_PER_INCH = 200


def draw_graph(subject: Subject, path: Path, picture_format: str) -> None:
    """Write the picture; raises PartitionError for what is too large to draw, OSError for the file."""
    check_size(subject)
    try:
        import matplotlib
    except ImportError:
        raise PartitionError("pictures are drawn by matplotlib, which is missing; pip install matplotlib") from None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "partition", "font.family": "DejaVu Sans"}):
        figure = figure_of(lay_out(subject))
        metadata = {"Date": None} if picture_format == "svg" else {"Software": None}
        dots = min(_DOTS_PER_INCH, 30_000 / max(figure.get_size_inches()))
        figure.savefig(path, format=picture_format, dpi=dots, metadata=metadata)


def check_size(subject: Subject) -> None:
    """Raise PartitionError for a graph of too many nodes."""
    nodes = len(subject.graph.nodes)
    if nodes > MOST_DRAWN:
        raise PartitionError(
            f"a picture of {nodes} nodes is too large to view, at most {MOST_DRAWN} are drawn; take fewer layers, "
            "or text, JSON or DOT"
        )


def figure_of(drawing: Drawing) -> Figure:
    """The figure, a point of the drawing a point on paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(0, drawing.height)
    axes.axis("off")
    _draw_bands(axes, drawing)
    _draw_lines(axes, drawing)
    for box in drawing.boxes:
        _draw_box(axes, box, drawing)
    for label in drawing.labels:
        _draw_label(axes, label)
    _draw_heading(axes, drawing)
    return figure


def _draw_bands(axes: Axes, drawing: Drawing) -> None:
    from matplotlib.patches import Rectangle

    for band in drawing.bands:
        axes.add_patch(Rectangle((band.left, band.bottom), band.right - band.left, band.top - band.bottom,
                                 facecolor=_STAGES[band.stage % len(_STAGES)], edgecolor="none", zorder=0))  # fmt: skip


def _draw_lines(axes: Axes, drawing: Drawing) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    scale = drawing.scale.letters / 9
    for kind in EdgeKind:
        for is_bus in (False, True):
            lines = [line for line in drawing.lines if line.kind is kind and line.is_bus is is_bus]
            if lines:
                style, width, color = _stroke(kind, is_bus)
                axes.add_collection(LineCollection([line.points for line in lines], colors=color,
                                                   linewidths=width * scale, linestyles=style, zorder=1))  # fmt: skip
                size = drawing.scale.letters * (0.55 if kind is EdgeKind.CARRIED else 0.4)
                heads = [_head(line, size) for line in lines if line.has_arrow]
                axes.add_collection(PolyCollection(heads, facecolors=color, edgecolors="none", zorder=1.5))


def _stroke(kind: EdgeKind, is_bus: bool) -> tuple[Any, float, str]:
    """Style, width and colour of a line."""
    if is_bus:
        return "solid", 0.6, _BUS
    style: Any = _DASHED if kind is EdgeKind.KEPT else "solid"
    return style, 2.2 if kind is EdgeKind.CARRIED else 0.8, _LINES[kind]


def _head(line: Line, size: float) -> list[tuple[float, float]]:
    """The triangle at the end of a line."""
    (x0, y0), (x1, y1) = line.points[-2:]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    ux, uy = (x1 - x0) / length * size, (y1 - y0) / length * size
    return [(x1, y1), (x1 - ux - 0.42 * uy, y1 - uy + 0.42 * ux), (x1 - ux + 0.42 * uy, y1 - uy - 0.42 * ux)]


def _draw_box(axes: Axes, box: Box, drawing: Drawing) -> None:
    from matplotlib.patches import Circle, Rectangle

    width, height = drawing.scale.node_width, drawing.scale.node_height
    line = drawing.scale.letters / 9
    if isinstance(box.node, OperatorNode):
        axes.add_patch(Circle((box.x, box.y), height / 2, facecolor="#ffffff", edgecolor="#111111",
                              linewidth=0.9 * line, zorder=2))  # fmt: skip
        return
    is_result = box.node.role in _RESULTS
    axes.add_patch(Rectangle((box.x - width / 2, box.y - height / 2), width, height, facecolor=_fill(box),
                             edgecolor="#111111", linewidth=(1.6 if is_result else 0.9) * line,
                             linestyle=_DOTTED if box.is_ghost else "solid", zorder=2))  # fmt: skip


def _fill(box: Box) -> str:
    node = box.node
    assert isinstance(node, VariableNode), "only squares are filled"
    if box.is_ghost:
        return _GHOST
    return _KEPT if node.is_kept else _FILLS[node.role]


def _draw_label(axes: Axes, label: Label) -> None:
    # Letters beside nodes may stand on a line: a ground keeps them apart.
    ground = None if label.is_inside else {"facecolor": "#ffffff", "alpha": 0.6, "edgecolor": "none", "pad": 0.2}
    axes.text(label.x, label.y, label.text, fontsize=label.size, color="#ffffff" if label.is_light else "#111111",
              va="center_baseline", ha="center" if label.is_centred else "left", bbox=ground, zorder=4)  # fmt: skip


# Heading


class _Sign(NamedTuple):
    """An entry of the legend: what is drawn before its words."""

    words: str
    node: Role | str | None = None
    """A square of a role, or `kept`, `operator`, `ghost`."""
    line: EdgeKind | str | None = None
    """A line of a kind, or `bus`."""


_WORDS = {
    GraphKind.FORWARD: "×: product with a weight, φ: activation, ℓ: loss",
    GraphKind.BACKWARD: "∂v is ∂J/∂v, of the shape of v",
    GraphKind.SECOND_ORDER: "v: direction, u: change along v, H: second derivative times v",
}
_OF_BLOCKS = {"N": "N: norm", "⊙": "⊙: gate", "m": "m: mask of a dropout"}


def _signs(drawing: Drawing) -> list[_Sign]:
    """What the drawing has, in words."""
    graph, kind = drawing.subject.graph, drawing.subject.graph.kind
    kinds = {line.kind for line in drawing.lines}
    signs = [_Sign("variable", Role.VALUE), _Sign("operator", "operator"), _Sign("parameter", Role.PARAMETER)]
    if any(node.is_kept for node in graph.variables):
        bytes_words = ", bytes beside it" if drawing.scale.has_bytes else ""
        signs.append(_Sign(f"kept from forward to backward{bytes_words}", "kept"))
    if kind is not GraphKind.FORWARD:
        signs.append(_Sign("result", Role.PARAMETER_GRADIENT))
    if EdgeKind.KEPT in kinds:
        signs.append(_Sign("read of an earlier pass", line=EdgeKind.KEPT))
    if EdgeKind.CARRIED in kinds:
        signs.append(_Sign("carried between stages", line=EdgeKind.CARRIED))
    if any(line.is_bus for line in drawing.lines):
        signs.append(_Sign("penalty λ/2 Σ ‖W‖²", line="bus"))
    if any(box.is_ghost for box in drawing.boxes):
        signs.append(_Sign("repeated from the row below", "ghost"))
    labels = {operator.label for operator in graph.operators}
    of_blocks = [words for label, words in _OF_BLOCKS.items() if label in labels and kind is GraphKind.FORWARD]
    return [*signs, _Sign(", ".join([_WORDS[kind], *of_blocks]))]


def _draw_heading(axes: Axes, drawing: Drawing) -> None:
    """The title and what the signs mean."""
    top = drawing.height - 14
    size = min(10.0, 10.0 * (drawing.width - 2 * MARGIN) / text_width(drawing.subject.title, 10.0))
    axes.text(MARGIN, top, drawing.subject.title, fontsize=size, va="center_baseline")
    x, y, letters = MARGIN, top - 15.0, 6.5
    for sign in _signs(drawing):
        width = text_width(sign.words, letters) + (14.0 if sign.node or sign.line else 0.0)
        if x > MARGIN and x + width > drawing.width - MARGIN:
            x, y = MARGIN, y - 12.0
        if sign.node or sign.line:
            _draw_sign(axes, sign, x, y)
            axes.text(x + 14.0, y, sign.words, fontsize=letters, va="center_baseline")
        else:
            axes.text(x, y, sign.words, fontsize=letters, va="center_baseline")
        x += width + 9.0


def _draw_sign(axes: Axes, sign: _Sign, x: float, y: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Patch, Rectangle

    if sign.line is not None:
        style, width, color = _stroke(EdgeKind.READ if sign.line == "bus" else EdgeKind(sign.line), sign.line == "bus")
        axes.add_line(Line2D((x, x + 11), (y, y), linestyle=style, linewidth=width, color=color))
        return
    patch: Patch = Circle((x + 6, y), 3.8, facecolor="#ffffff", edgecolor="#111111", linewidth=0.7)
    if sign.node is not None and sign.node != "operator":
        fill = _KEPT if sign.node == "kept" else _GHOST if sign.node == "ghost" else _FILLS[Role(sign.node)]
        patch = Rectangle((x + 2, y - 3.6), 8, 7.2, facecolor=fill, edgecolor="#111111", linewidth=0.7,
                          linestyle=_DOTTED if sign.node == "ghost" else "solid")  # fmt: skip
    axes.add_patch(patch)
