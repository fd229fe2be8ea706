"""docs/graph/*.svg are what the command draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.make_graph_docs import PICTURES, ROOT, draw


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_current(name: str, tmp_path: Path) -> None:
    """Where this fails: python -m scripts.make_graph_docs, and look at what has changed."""
    assert draw(name, tmp_path).read_bytes() == (ROOT / "docs/graph" / f"{name}.svg").read_bytes()


def test_every_picture_is_shown_and_no_other_is_kept() -> None:
    text = (ROOT / "docs/graph.md").read_text(encoding="utf-8")
    assert {path.stem for path in (ROOT / "docs/graph").glob("*")} == PICTURES.keys()
    assert all(f"](graph/{name}.svg)" in text for name in PICTURES)
