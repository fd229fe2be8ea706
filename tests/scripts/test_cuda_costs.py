"""The measurement on a GPU: what can be said of it without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import cuda_costs
from scripts.cuda_costs import largest, measure_largest, measure_limit, measure_memory, measure_part, summary

ROOT = Path(__file__).resolve().parents[2]
SIMULATED: dict[str, Any] = {
    "kind": "simulated", "memory_bytes": 2**40, "flop_per_s": {"default": 1e12}, "memory_bytes_per_s": 1e11
}  # fmt: skip


def test_without_a_gpu_it_says_so_in_one_line_and_does_nothing() -> None:
    result = ROOT / "docs" / "results" / "cuda_costs.json"
    before = result.read_bytes() if result.exists() else None
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cuda_costs"],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "no CUDA GPU here: nothing was measured, nothing was written\n"
    assert (result.read_bytes() if result.exists() else None) == before


@pytest.mark.parametrize("most", [0, 1, 2, 63, 64, 99_999])
@pytest.mark.parametrize("start", [1, 60, 100_000])
def test_the_largest_that_fits_is_found_to_a_thousandth(most: int, start: int) -> None:
    assert most - max(0, most // 1000) <= largest(lambda size: size <= most, start) <= most


@pytest.mark.slow
def test_every_part_runs_on_a_simulated_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the ledger is what is measured, and the clock is the cost model's, so that nothing is off."""
    monkeypatch.setattr(cuda_costs, "LIMIT_BYTES", 5 * 2**20)
    monkeypatch.setattr(cuda_costs, "LIMIT_STEPS", 6)
    small = next(seed for seed in range(100) if sum(cuda_costs.experiment(seed, SIMULATED, 1).model.features) < 700)
    memory = measure_memory(small, SIMULATED)
    assert memory["predicted_bytes"] == memory["measured_bytes"]
    sizes = measure_largest(small, SIMULATED)
    assert sizes["predicted_minibatch"] == pytest.approx(sizes["measured_minibatch"], rel=2e-3)
    limit = measure_limit(small, SIMULATED)
    assert 0.5 < limit["share_of_limit"] <= 1
    assert limit["num_steps"] == 6
    lines = summary([{"part": "memory", **memory}, {"part": "limit", **limit}])
    assert lines == [
        "memory, never below and at most 0.5% above: 2 of 2, from +0.00% to +0.00%",
        "largest minibatch, within 1%: nothing measured",
        "plans near the limit that ran 6 steps: 1 of 1",
        "step near the limit, within 5%: nothing measured",
        "runs that failed: 0",
    ]


@pytest.mark.slow
def test_a_time_is_of_costs_measured_just_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_costs, "LIMIT_BYTES", 5 * 2**20)
    monkeypatch.setattr(cuda_costs, "LIMIT_STEPS", 8)
    monkeypatch.setattr(cuda_costs, "PROFILE_S", 0.1)
    cpu = {**SIMULATED, "kind": "cpu"}
    small = next(seed for seed in range(100) if sum(cuda_costs.experiment(seed, cpu, 1).model.features) < 700)
    (row,) = measure_part("time", [small], cpu)
    assert 0 < row["predicted_step_s"] / row["measured_step_s"] < 20


def test_an_experiment_that_fails_says_so_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_once(seed: int, _: object) -> dict[str, Any]:
        if seed == 0:
            raise RuntimeError("no more")
        return {"measured": seed}

    monkeypatch.setitem(cuda_costs._MEASURES, "memory", fail_once)
    failed, ran = measure_part("memory", [0, 1], SIMULATED)
    assert failed["error"] == "RuntimeError: no more"
    assert ran["measured"] == 1


def test_a_prediction_below_is_told_and_so_is_a_run_that_failed() -> None:
    rows: list[dict[str, Any]] = [
        {"part": "memory", "predicted_bytes": 99, "measured_bytes": 100},
        {"part": "limit", "seed": 3, "error": "out of memory"},
    ]
    assert "0 of 1, from -1.00%" in summary(rows)[0]
    assert summary(rows)[2] == "plans near the limit that ran 50 steps: 0 of 1"
    assert summary(rows)[4] == "runs that failed: 1; limit 3: out of memory"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["scripts/test_cuda.sh"], "skipped: there is no CUDA GPU"),
        (["scripts/nccl_one_gpu.sh", "configs/mnist.yaml"], "skipped: there is no CUDA GPU"),
        ([sys.executable, "-m", "scripts.benchmarks.cuda_speed"], "nothing was measured, nothing was written"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_needs_a_gpu_says_so_and_ends_well(command: list[str], words: str) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert words in done.stdout + done.stderr
