"""`doctor` and `selftest`: honest about what was found and what could not be tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from partition.cli import main
from partition.record.checks import Check, Standing, is_well
from partition.runtime import doctor, selftest


def test_doctor_looks_at_everything_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(tmp_path / "runs"), "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"python", "torch", "threads", "memory", "gloo", "nccl", "message", "port", "disk"} <= checks.keys()
    assert str(tmp_path) in checks["disk"]["detail"]
    if torch.version.cuda is None:
        assert checks["cuda"]["standing"] == "not tried"


def test_a_disk_that_cannot_be_written_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Also for root, whom permissions do not stop."""
    assert main(["doctor", "--out", "/proc/runs"]) == 4
    assert "cannot be written" in capsys.readouterr().out


def test_threads_beyond_the_cores_are_worth_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    (threads,) = [check for check in doctor.examine(tmp_path) if check.name == "threads"]
    assert threads.standing is Standing.WARN
    assert "OMP_NUM_THREADS" in threads.detail


def test_what_fails_is_not_well_and_what_was_not_tried_is() -> None:
    checks = [Check(name="a", standing=standing, detail="") for standing in Standing]
    assert not is_well(checks)
    assert is_well([check for check in checks if check.standing is not Standing.FAIL])


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
    assert [check["standing"] for check in checks.values()] == ["ok"] * 5


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
    standings = {check.name: check.standing for check in selftest.selftest(2, "cpu")}
    assert standings["bits"] is Standing.FAIL
    assert standings["memory"] is Standing.OK
