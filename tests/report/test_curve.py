"""The curve as a picture: a line a device, the limit where it is near, equal pictures are equal files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from partition.plan import Search
from partition.plan.curve import memory_curve
from partition.report.curve import draw_curve
from tests.plan.conftest import build_config, with_memory


def texts_of(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


def draw(path: Path, name: str, limit: int) -> Path:
    search = Search(with_memory(build_config(planner={"num_microbatches": (4,)}), *(limit,) * 4))
    candidate = next(one for one in search.candidates() if one.name == name)
    draw_curve(memory_curve(search, candidate), path, path.suffix[1:])
    return path


def test_devices_and_sizes_are_named(tmp_path: Path) -> None:
    texts = texts_of(draw(tmp_path / "a.svg", "pipeline-3x4-1f1b", 2**20))
    assert {"rank 0", "rank 1", "rank 2", "KiB", "minibatch, in 4 microbatches", "microbatch, minibatch 22"} <= {*texts}
    assert not any(text.startswith("limit") for text in texts)


def test_a_limit_is_drawn_where_it_is_near(tmp_path: Path) -> None:
    assert "limit 7.8 KiB" in texts_of(draw(tmp_path / "a.svg", "whole", 8000))


def test_sharded_candidates_have_one_panel(tmp_path: Path) -> None:
    texts = texts_of(draw(tmp_path / "a.svg", "sharded-4", 2**20))
    assert "minibatch, in 1 microbatch" in texts
    assert not any(text.startswith("microbatch, ") for text in texts)


def test_equal_pictures_are_equal_files_and_png_is_png(tmp_path: Path) -> None:
    first, second = (draw(tmp_path / name, "whole", 8000).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert draw(tmp_path / "a.png", "whole", 8000).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_is_missing(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.modules['matplotlib'] = None\nfrom partition.cli import main\n"
        "sys.exit(main(['memory', 'configs/digits.yaml', '--out-file', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.svg")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "matplotlib, which is missing" in done.stderr
    assert list(tmp_path.iterdir()) == []
