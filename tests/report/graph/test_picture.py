"""Pictures: as matplotlib measures letters none overlap, colours stay apart in grey, files are equal each time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from partition.errors import PartitionError
from partition.graph.computational import GraphKind
from partition.report.graph import picture
from partition.report.graph.layout import lay_out
from partition.report.graph.picture import draw_graph, figure_of
from tests.report.graph.subjects import Rectangle, overlaps, subject


def measured(figure: Figure) -> list[Rectangle]:
    """All letters of a figure, in points, where the renderer puts them."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for text in figure.axes[0].texts:
        box = text.get_window_extent(canvas.get_renderer())
        points = [value * 72 / figure.dpi for value in (box.x0, box.y0, box.x1, box.y1)]
        found.append(Rectangle(text.get_text(), *points))
    return found


@pytest.mark.parametrize(
    ("num_layers", "num_stages"),
    [
        (3, 1),
        (3, 2),
        pytest.param(60, 1, marks=pytest.mark.slow),
        pytest.param(60, 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", GraphKind)
def test_no_letters_overlap_as_they_are_rendered(kind: GraphKind, num_layers: int, num_stages: int) -> None:
    figure = figure_of(lay_out(subject(kind, num_layers, num_stages)))
    rectangles = measured(figure)
    assert len(rectangles) > 20
    # A quarter of a point: what the renderer rounds outward.
    assert not list(overlaps(rectangles, 0.25))
    width, height = (inches * 72 for inches in figure.get_size_inches())
    assert all(one.left >= 0 and one.right <= width and one.bottom >= 0 and one.top <= height for one in rectangles)


def test_letters_laid_over_each_other_are_measured() -> None:
    figure = figure_of(lay_out(subject(GraphKind.FORWARD)))
    axes = figure.axes[0]
    first = axes.texts[0]
    axes.text(*first.get_position(), "over", fontsize=8)
    assert list(overlaps(measured(figure), 0.25))


def lightness(color: str) -> float:
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_what_differs_differs_in_lightness() -> None:
    kept, result = lightness(picture._KEPT), lightness(picture._FILLS[picture._RESULTS[0]])
    parameter = lightness(picture._FILLS[picture.Role.PARAMETER])
    assert kept < 0.3 < result - 0.3 < result + 0.15 < parameter < 0.95
    grounds = [lightness(color) for color in picture._STAGES]
    for one, next_one in zip(grounds, [*grounds[1:], grounds[0]], strict=True):
        assert abs(one - next_one) >= 0.08
    assert min(grounds) > 0.75


@pytest.mark.parametrize("picture_format", ["svg", "png"])
def test_equal_pictures_are_equal_files(tmp_path: Path, picture_format: str) -> None:
    files = [tmp_path / f"{name}.{picture_format}" for name in "ab"]
    for file in files:
        draw_graph(subject(GraphKind.BACKWARD, 3, 2), file, picture_format)
    one, other = (file.read_bytes() for file in files)
    assert one == other
    assert one.startswith(b"\x89PNG" if picture_format == "png" else b"<?xml")


def test_the_letters_of_an_svg_are_letters(tmp_path: Path) -> None:
    draw_graph(subject(GraphKind.SECOND_ORDER, 3, 2), tmp_path / "a.svg", "svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for letters in ("vW0", "HW2", "stage 1, simulated:1", "252.0 KiB", "carried between stages"):
        assert letters in text


def test_what_no_viewer_opens_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MOST_DRAWN", 10)
    with pytest.raises(PartitionError, match="a picture of 24 nodes is too large to view, at most 10 are drawn"):
        draw_graph(subject(GraphKind.FORWARD), tmp_path / "a.svg", "svg")


def test_without_matplotlib_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PartitionError, match="pip install matplotlib"):
        draw_graph(subject(GraphKind.FORWARD), tmp_path / "a.svg", "svg")
