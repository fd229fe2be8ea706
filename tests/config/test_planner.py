"""Layers that are kept together or pinned, as a file writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition.config import PlannerConfig, dump_config, load_config
from partition.errors import ConfigError

ROOT = Path(__file__).parents[2]


def planner(*overrides: str) -> PlannerConfig:
    return load_config(ROOT / "configs/mnist.yaml", list(overrides)).planner


def test_a_layer_alone_is_a_run_and_one_pin_a_list() -> None:
    """By index, also as digits, or by name."""
    found = planner("planner.keep_together=[[0, 2], ['4', head]]", "planner.pinned={layers: 3, device: simulated:1}")
    assert found.keep_together == ((0, 2), (4, "head"))
    assert found.pinned is not None
    assert [(pin.layers, pin.device) for pin in found.pinned] == [((3, 3), "simulated:1")]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """As every other key."""
    config = load_config(ROOT / "configs/mnist.yaml", ["planner.keep_together=[[0, 2]]",
                                                       "planner.pinned=[{layers: [3, x1], device: 1}]"])  # fmt: skip
    path = tmp_path / "mnist.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("keep_together=[[0, true]]", "keep_together.0.1: true is neither a whole number from 0 nor a name"),
        ("keep_together=[[0, -1]]", "keep_together.0.1: -1 is too small; the least is 0"),
        ("keep_together=[[0, 1, 2]]", "keep_together.0: the list is too long: 3 entries, the most is 2"),
        ("keep_together=[[0]]", "keep_together.0: the list is too short; write it like [[2, 5], [7, 8]]"),
        ("keep_together=[]", "keep_together: the list is too short; write it like [[2, 5], [7, 8]]"),
        ("pinned=[{layers: 0}]", "pinned.0.device: is missing; add it, for example `device: 0`"),
        ("pinned=[{layer: 0, device: 0}]", "pinned.0.layer: unknown key; did you mean 'layers'?"),
        ("pinned=[{layers: 99999999999, device: 0}]", "pinned.0.layers: 99999999999 is too large; the most is 100000"),
        ("pinned={layers: -1, device: 0}", "pinned.layers: -1 is too small; the least is 0"),
        ("keep_together=[2.5]", "keep_together.0: 2.5 is neither a whole number from 0 nor a name"),
        ("pinned=3", "pinned: 3 is not a list; write it like [{layers: [0, 1], device: 0}]"),
        ("device_map=3", "device_map: unknown key; use planner.pinned: [{layers: [first, last], device: 0}]"),
    ],
)
def test_refusals(override: str, message: str) -> None:
    """The place, the value, the remedy."""
    with pytest.raises(ConfigError) as refusal:
        planner(f"planner.{override}")
    assert f"planner.{message}" in str(refusal.value)
