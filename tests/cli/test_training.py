"""`partition train` under constraints: what is planned is what is trained, and what breaks them is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partition.cli import main

EXPERIMENT = """\
model: {in_features: 12, hidden_features: [10, 9, 8, 7, 6], out_features: 5}
data: {source: synthetic, num_examples: 64}
training: {minibatch_size: 16, steps: 2}
optimizer: {name: sgd, lr: 0.1}
cluster: {devices: {count: 3, kind: simulated, memory: 1 MiB, compute: 1 GFLOP/s, memory_bandwidth: 1 GB/s}}
planner:
  num_microbatches: 4
  keep_together: [[1, 2]]
  pinned: [{layers: 0, device: 2}, {layers: [4, 5], device: simulated:0}]
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Six layers: the first on the last device, the last two on the first."""
    monkeypatch.chdir(tmp_path)
    Path("pins.yaml").write_text(EXPERIMENT)
    return "pins.yaml"


def layout(run: str) -> list[tuple[str, int, int]]:
    """Device, first and last layer of every stage of a run's plan."""
    plan = json.loads(Path(run, "plan.json").read_text())["candidate"]
    return [(stage["device"], stage["first_layer"], stage["last_layer"]) for stage in plan["stages"]]


def final_loss(run: str) -> str:
    lines = Path(run, "metrics.jsonl").read_text().splitlines()
    return str(json.loads(lines[-1])["loss_hex"])


@pytest.mark.parametrize("strategy", ["pipeline-3x4-1f1b", "pipeline-2x4-1f1b", "pipeline-2x4-interleaved_1f1b"])
def test_a_run_has_the_pinned_layout(experiment: str, strategy: str) -> None:
    """Of one stage a device and of two; the numbers are those of a run without constraints."""
    assert main(["train", experiment, "--strategy", strategy, "--out", "held"]) == 0
    stages = layout("held")
    by_layer = {layer: stage for stage in stages for layer in range(stage[1], stage[2] + 1)}
    assert by_layer[0][0] == "simulated:2"
    assert by_layer[4] == by_layer[5]
    assert by_layer[4][0] == "simulated:0"
    assert by_layer[1] == by_layer[2]
    summary = json.loads(Path("held", "summary.json").read_text())
    assert {one["device"] for one in summary["per_device"]} == {device for device, _, _ in stages}
    assert all(one["measured_peak_bytes"] == one["predicted_peak_bytes"] for one in summary["per_device"])
    assert main(["train", experiment, "planner.keep_together=null", "planner.pinned=null", "--strategy",
                 "accumulate-4", "--out", "free"]) == 0  # fmt: skip
    assert final_loss("held") == final_loss("free")


def test_a_way_that_cannot_honour_them_is_not_trained(experiment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every replica would hold the pinned layers."""
    assert main(["train", experiment, "--strategy", "data_parallel-2x4"]) != 0
    assert "layer 0 pinned to simulated:2" in capsys.readouterr().err


def test_a_plan_made_without_them_is_refused(experiment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the layers and devices that differ; a plan made with them is checked and trained."""
    assert main(["plan", experiment, "planner.pinned=null", "--out", "free"]) == 0
    assert main(["plan", experiment, "--out", "held"]) == 0
    capsys.readouterr()
    assert main(["train", experiment, "--plan", "free/plan.json", "--out", "run"]) == 2
    assert "free/plan.json: breaks planner.keep_together or planner.pinned: layer" in capsys.readouterr().err
    assert main(["plan", experiment, "--check", "held/plan.json"]) == 0
    assert "pins    holds: layers 1-2 kept together, layer 0 pinned to simulated:2" in capsys.readouterr().out
    assert main(["train", experiment, "--plan", "held/plan.json", "--out", "run"]) == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("planner.keep_together=[[1, 6]]", "planner.keep_together.0: there is no layer 6; layers are 0 to 5"),
        ("planner.keep_together=[[1, body]]", "planner.keep_together.0: 'body' is a name, layers of a network have"),
        ("planner.pinned=[{layers: 1, device: 3}]", "planner.pinned.0: there is no device 3; write 0 to 2, or a name"),
        (
            "planner.keep_together=[[0, 4]]",
            "planner.pinned.1: layers 0-5, kept in one stage, cannot be on simulated:0 and, by planner.pinned.0, on "
            "simulated:2; pin them to one device",
        ),
    ],
)
def test_constraints_that_cannot_be(
    experiment: str, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is planned."""
    assert main(["train", experiment, override]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"partition: {message}")
    assert captured.err.count("\n") == 1
