"""The memory that is said to be enough is enough, and a little less is not."""

from __future__ import annotations

import re

import pytest

from partition.config import ExperimentConfig
from partition.plan import Search, compare
from partition.plan.explanation import explain
from partition.plan.more_memory import least_memory
from partition.report.explanation import explanation_words
from partition.units import format_bytes_enough, parse_bytes

from .conftest import build_config, with_memory


def on_gpus(memory_bytes: int) -> ExperimentConfig:
    """A network of a few hundred MiB on two GPUs, of which a driver takes a part."""
    device = {"name": "RTX-4090", "kind": "cuda", "memory_bytes": memory_bytes, "flop_per_s": None,
              "memory_bytes_per_s": None}  # fmt: skip
    return build_config(
        model={"in_features": 4096, "hidden_features": (4096, 4096), "out_features": 4096, "activation": "relu"},
        cluster={"devices": (device, device)},
        planner={"strategies": ("accumulate", "pipeline"), "schedules": ("1f1b",), "num_microbatches": (2, 4)},
    )


@pytest.mark.parametrize("limits", [(2000, 2000), (1500,), (2100, 2100)])
def test_what_is_said_is_enough_and_nearly_the_least(limits: tuple[int, ...]) -> None:
    """Ways that recompute are laid out where they may come to fit, which leaves a little."""
    found = least_memory(compare(with_memory(build_config(), *limits)).candidates)
    assert found is not None
    assert found.figure is not None
    assert compare(with_memory(build_config(), *[found.figure] * len(limits))).chosen is not None
    assert compare(with_memory(build_config(), *[int(found.figure * 0.97)] * len(limits))).chosen is None


def test_unlike_devices_have_a_factor() -> None:
    limits = (1500, 2000)
    found = least_memory(compare(with_memory(build_config(), *limits)).candidates)
    assert found is not None
    assert found.figure is None
    times = float(found.in_words.split()[0])
    assert compare(with_memory(build_config(), *[int(one * times) for one in limits])).chosen is not None
    assert compare(with_memory(build_config(), *[int(one * times * 0.9) for one in limits])).chosen is None


def test_of_a_gpu_what_the_driver_takes_is_counted() -> None:
    """The verdict named what must be allocated as the size of the device, which was 4% too little."""
    refused = compare(on_gpus(1100 * 2**20))
    (said,) = re.findall(r"Devices of (\S+ \S+) would do for it", refused.verdict)
    assert compare(on_gpus(parse_bytes(said))).chosen is not None
    assert compare(on_gpus(parse_bytes(said) - 15 * 2**20)).chosen is None


def test_the_verdict_and_the_remedy_say_the_same() -> None:
    """They differed by what a bisection leaves open."""
    search = Search(with_memory(build_config(), 2000, 2000))
    comparison = compare(search.settings)
    words = " ".join(explanation_words(explain(search, comparison, with_break_even=False)))
    (verdict,) = re.findall(r"Devices of (\S+ \S+) would do for it", comparison.verdict)
    assert f"devices of {verdict} (" in words


def test_what_simulated_devices_cannot_hold_is_no_remedy() -> None:
    """Devices of the bytes of a sharded model were said to do for it, and then nothing could be chosen."""
    search = Search(with_memory(build_config(planner={"strategies": ("sharded",)}), 2000, 2000))
    comparison = compare(search.settings)
    assert "would do" not in comparison.verdict
    assert comparison.verdict.startswith("Nothing can be chosen. The closest is sharded-2 ")
    found = explain(search, comparison, with_break_even=False)
    assert (found.more_memory, found.more_devices) == (None, None)


@pytest.mark.parametrize("value", [1, 1023, 1024, 1076, 79_650_000, 79_730_000, 2**40 + 1, 1024**2 - 1])
def test_bytes_that_are_enough(value: int) -> None:
    assert value <= parse_bytes(format_bytes_enough(value)) <= value * 1.01
