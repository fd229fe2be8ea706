"""Letters beside nodes go where no line is, and stay where none disturbs them."""

from __future__ import annotations

from partition.graph.computational import EdgeKind, GraphKind
from partition.report.graph.drawing import Box, Label, Line
from partition.report.graph.layout import lay_out
from partition.report.graph.placing import Area, Beside, Cells, letters_of, placed
from tests.report.graph.subjects import subject

DRAWING = lay_out(subject(GraphKind.BACKWARD))
SCALE = DRAWING.scale
BOX: Box = next(box for box in DRAWING.boxes if box.node.id == "z0")._replace(x=300.0, y=300.0)
UNDER = Label("252.0 KiB", BOX.x, BOX.y - SCALE.node_height / 2 - SCALE.captions, SCALE.captions)


def place(*lines: tuple[tuple[float, float], ...], fixed: tuple[Label, ...] = ()) -> Label:
    drawn = [Line(points, EdgeKind.READ) for points in lines]
    return placed([Beside(UNDER, BOX)], fixed, [BOX], drawn, SCALE, 600.0)[0]


def vertical(x: float) -> tuple[tuple[float, float], ...]:
    return (x, 0.0), (x, 600.0)


def test_an_undisturbed_label_stays() -> None:
    assert place() == UNDER
    assert place(vertical(UNDER.x + 60)) == UNDER


def test_it_goes_no_further_than_it_must() -> None:
    line = vertical(UNDER.x + 10)
    moved = place(line)
    assert moved.x < UNDER.x
    assert moved.y == UNDER.y
    assert not letters_of(moved).is_crossed((line[0], line[1]))
    back = moved._replace(x=moved.x + 0.09 * SCALE.column)
    assert letters_of(back).is_crossed((line[0], line[1]))


def test_it_goes_to_the_other_side_of_its_node() -> None:
    moved = place(((0.0, UNDER.y), (600.0, UNDER.y)))
    assert (moved.x, moved.y) == (BOX.x, 2 * BOX.y - UNDER.y)


def test_it_goes_over_no_other_letters() -> None:
    other = UNDER._replace(y=2 * BOX.y - UNDER.y, text="x" * 60)
    assert place(((0.0, UNDER.y), (600.0, UNDER.y)), fixed=(other,)) == UNDER


def test_where_every_place_is_crossed_it_has_the_fewest_lines() -> None:
    under = ((0.0, UNDER.y), (600.0, UNDER.y))
    over = ((0.0, 2 * BOX.y - UNDER.y), (600.0, 2 * BOX.y - UNDER.y))
    assert place(under, over) == UNDER
    assert place(under, under, over).y > BOX.y


def test_an_area_is_crossed_by_what_enters_it() -> None:
    area = Area(0.0, 0.0, 4.0, 2.0)
    assert area.is_crossed(((-1.0, -1.0), (5.0, 3.0)))
    assert area.is_crossed(((1.0, 1.0), (2.0, 1.0)))
    assert not area.is_crossed(((-1.0, 2.0), (5.0, 2.0)))
    assert not area.is_crossed(((-2.0, 0.0), (1.0, 4.0)))


def test_cells_have_what_touches_them_once() -> None:
    cells = Cells[str](1.0)
    cells.put(0, Area(0.2, 0.2, 5.0, 0.4), "long")
    cells.put(1, Area(9.0, 9.0, 9.1, 9.1), "far")
    assert cells.near(Area(0.0, 0.0, 6.0, 1.0)) == ["long"]
    cells.drop(0, Area(0.2, 0.2, 5.0, 0.4))
    assert cells.near(Area(0.0, 0.0, 6.0, 1.0)) == []
