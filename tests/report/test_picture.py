"""Pictures: every action and label is there, kinds can be told apart without colour, equal pictures are equal files."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.report import picture
from partition.report.picture import draw_picture
from partition.schedule import Kind, generate, uniform_costs
from partition.schedule.simulation import Simulation, simulate


def simulated(name: str, ranks: int, microbatches: int) -> Simulation:
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    return simulate(schedule, uniform_costs(schedule, send_s=0.125))


def test_every_action_is_labelled(tmp_path: Path) -> None:
    draw_picture(simulated("zb_h1", 4, 8), tmp_path / "a.svg", "svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    for kind in ("F", "I", "W"):
        for microbatch in range(8):
            assert texts.count(f"{kind}{microbatch}") == 4
    for name in ("F forward", "I input gradient", "W weight gradient", "rank 3", "time, s"):
        assert name in texts
    assert "B backward" not in texts


def test_stages_are_named_where_a_rank_holds_several(tmp_path: Path) -> None:
    draw_picture(simulated("zbv", 2, 3), tmp_path / "a.svg", "svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert {"0F0", "3W2", "2I1"} <= set(texts)


@pytest.mark.parametrize("form", ["svg", "png"])
def test_equal_pictures_are_equal_files(form: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_picture(simulated("1f1b", 2, 3), tmp_path / name, form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_png_is_one_and_has_a_size_that_opens(tmp_path: Path) -> None:
    draw_picture(simulated("1f1b", 16, 16), tmp_path / "a.png", "png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 1000 < width <= 12_000
    assert 500 < height <= 12_000


def luminance(color: tuple[float, float, float]) -> float:
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("kinds", [(Kind.F, Kind.B, Kind.STEP), (Kind.F, Kind.I, Kind.W, Kind.STEP)])
def test_kinds_differ_in_lightness(kinds: tuple[Kind, ...]) -> None:
    """First and last stages of a rank alike: in print, and for readers who see fewer colours, lightness is left."""
    shades = sorted((luminance(picture._color(kind, depth)), kind) for kind in kinds for depth in (0.0, 1.0))
    nearest = min(after - before for (before, one), (after, other) in pairwise(shades) if one is not other)
    assert nearest > 0.07


def test_nothing_happens_in_a_picture_without_duration(tmp_path: Path) -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=2)
    costs = uniform_costs(schedule, forward_s=0.0, input_grad_s=0.0, weight_grad_s=0.0)
    draw_picture(simulate(schedule, costs), tmp_path / "a.svg", "svg")
    assert "rank 1" in (tmp_path / "a.svg").read_text()


def test_what_no_viewer_opens_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MOST_DRAWN", 11)
    with pytest.raises(PartitionError, match="a picture of 12 actions is too large to view, at most 11 are drawn"):
        draw_picture(simulated("1f1b", 2, 3), tmp_path / "a.svg", "svg")
    assert not (tmp_path / "a.svg").exists()


def test_without_matplotlib_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PartitionError, match="pip install matplotlib"):
        draw_picture(simulated("1f1b", 2, 3), tmp_path / "a.svg", "svg")


def test_importing_the_package_and_the_command_imports_no_matplotlib() -> None:
    code = "import sys, partition, partition.cli; partition.cli.build_parser(); print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
