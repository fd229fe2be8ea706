"""A folder for checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run directory, not there yet."""
    return tmp_path / "checkpoints"
