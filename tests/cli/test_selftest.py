"""`selftest`: the whole path, and a difference where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from partition.cli import main
from partition.runtime import selftest


@pytest.mark.parametrize("num_processes", ["1", "0", "-3", "65"])
def test_selftest_needs_several_processes(num_processes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--nproc", num_processes]) == 2
    assert "take from 2 to 64 processes" in capsys.readouterr().err


def test_selftest_without_the_devices_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["selftest", "--kind", "cuda"]) == 4
    assert "2 CUDA devices are needed, torch sees 1" in capsys.readouterr().err


@pytest.mark.slow
def test_selftest_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert [check["status"] for check in checks.values()] == ["ok"] * 5


@pytest.mark.slow
def test_selftest_tells_when_bits_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread count for the run in one process: other bits, and a failure of that check alone."""
    original = selftest._train

    def with_other_microbatches(path: Path, name: str, strategy: str, num_processes: int) -> selftest._Run:
        return original(path, name, strategy.replace("accumulate-8", "whole"), num_processes)

    experiment = selftest.experiment

    def with_whole(num_processes: int, kind: str) -> dict[str, object]:
        made = experiment(num_processes, kind)
        return {**made, "planner": {**made["planner"], "strategies": ["whole", "pipeline"]}}

    monkeypatch.setattr(selftest, "_train", with_other_microbatches)
    monkeypatch.setattr(selftest, "experiment", with_whole)
    standings = {check.name: check.status for check in selftest.selftest(2, "cpu")}
    assert standings["bits"] == "fail"
    assert standings["memory"] == "ok"
