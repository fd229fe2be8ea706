"""`partition doctor`: a line for everything that was looked at, and no traceback whatever is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from partition.cli import main
from partition.record.checks import Check
from partition.runtime import doctor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def _torch_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    untried = Check(name="nccl", status="untried", text="no device")
    monkeypatch.setattr(doctor, "check_torch", lambda: [Check(name="torch", status="ok", text="2.13"), untried])


@pytest.mark.usefixtures("_torch_is_well")
def test_every_check_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["nccl            could not be tried  no device", "", "ready"]
    assert lines[0].startswith("python          ok ")


@pytest.mark.usefixtures("_torch_is_well")
def test_what_fails_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", "/proc/runs", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["schema_version"], document["is_ready"]) == (1, False)
    assert [check["name"] for check in document["checks"] if check["status"] == "fail"] == ["disk"]


def test_an_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "a.yaml"]) == 2
    assert "doctor takes no 'a.yaml'" in capsys.readouterr().err


def test_a_torch_that_is_broken_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-P", "-m", "partition", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (4, "")
    assert "torch           FAIL                cannot be imported (OSError: libcudart.so.12" in done.stdout


@pytest.mark.slow
def test_this_machine() -> None:
    done = subprocess.run([sys.executable, "-m", "partition", "doctor"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 MiB between two processes and back in" in done.stdout
