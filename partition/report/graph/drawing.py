"""What a drawing consists of, in points from the lower left corner of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from partition.graph.computational import EdgeKind, OperatorNode, VariableNode
from partition.report.graph.subject import Subject

_WIDE = {"W": 1.0, "M": 0.88, "m": 0.98, "×": 0.84, "+": 0.84, "=": 0.84, "H": 0.77, "∂": 0.55, "'": 0.28, ".": 0.33,
         ",": 0.33, " ": 0.33, "i": 0.3, "l": 0.3, "B": 0.7, "K": 0.67}  # fmt: skip
_USUAL_WIDTH = 0.645


def text_width(text: str, size: float) -> float:
    """Points that a text takes in DejaVu Sans, rather more than less."""
    return size * sum(_WIDE.get(letter, _USUAL_WIDTH) for letter in text)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes in points: of a column, a level, a node and its letters."""

    column: float
    level: float
    node_width: float
    node_height: float
    letters: float
    captions: float
    has_bytes: bool = True
    """Whether there is room for the bytes of what is kept: in a drawing of the second order not always."""

    @property
    def line(self) -> float:
        """Height of a line of captions."""
        return 1.22 * self.captions


class Box(NamedTuple):
    """A node in its place; a ghost stands for one of the row below or above."""

    node: VariableNode | OperatorNode
    x: float
    y: float
    row: int
    is_ghost: bool = False


class Label(NamedTuple):
    """A text around its place, or from its place on."""

    text: str
    x: float
    y: float
    size: float
    is_centred: bool = True
    is_light: bool = False
    """White, on a dark square."""
    is_inside: bool = False
    """Of a node, else beside one, on a line or over a stage."""


class Line(NamedTuple):
    """A line, with an arrow at its end or not."""

    points: tuple[tuple[float, float], ...]
    kind: EdgeKind
    has_arrow: bool = True
    is_bus: bool = False
    ends: tuple[str, str] = ("", "")
    """Ids of the nodes that it joins."""


class Band(NamedTuple):
    """The ground of a stage in one row."""

    stage: int
    left: float
    right: float
    bottom: float
    top: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything that is drawn."""

    subject: Subject
    width: float
    height: float
    scale: Scale
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]
    bands: tuple[Band, ...]
