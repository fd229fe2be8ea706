"""Two runs of `partition plan` give the same answer, byte for byte, whatever order their sets and hashes have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = ("digits", "wide_deep_24gb", "mnist", "chain", "residual", "swiglu", "recommender", "unlike_devices")


def answer(config: str, hash_seed: str, folder: Path) -> tuple[bytes, bytes]:
    """What a process prints and the plan that it writes."""
    command = [sys.executable, "-m", "partition", "plan", f"configs/{config}.yaml", "--json", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.stdout, (folder / "plan.json").read_bytes()


@pytest.mark.parametrize(
    "config", [name if name == "wide_deep_24gb" else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
)
def test_the_plan_is_the_same_whatever_the_hashes_are(config: str, tmp_path: Path) -> None:
    first, *others = (answer(config, seed, tmp_path / seed) for seed in ("0", "1", "4242"))
    assert first[0]
    assert all(other == first for other in others)
