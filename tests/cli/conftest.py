"""A small experiment in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from partition.cli import main

EXPERIMENT = """\
model: {in_features: 12, hidden_features: [10, 9, 8], out_features: 5, activation: gelu}
data: {source: synthetic, num_examples: 80}
training: {minibatch_size: 22, steps: 10}
optimizer: {lr: 1e-1, momentum: 0.9}
checkpoint: {every_steps: 4}
cluster:
  devices: {count: 4, kind: simulated, memory: 1 MiB, compute: 1 GFLOP/s, memory_bandwidth: 1 GB/s}
planner: {num_microbatches: [4]}
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Another number of threads gives other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The experiment's file; the working directory is its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(EXPERIMENT)
    return "small.yaml"


Run = Callable[..., tuple[int, str, str]]
"""Runs a verb on the small experiment with further arguments: exit code, standard output, errors."""


@pytest.fixture
def on_small(small: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """The verb comes first."""

    def command(verb: str, *arguments: str) -> tuple[int, str, str]:
        code = main([verb, small, *arguments])
        return code, *capsys.readouterr()

    return command


def record(run: Run, *arguments: str) -> dict[str, Any]:
    """The document of a command that goes well and says nothing else."""
    code, out, err = run("--json", *arguments)
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document
