"""The scripts say in one line why an environment cannot be used, and hold what is in one that can."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def lacking() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lacking", SCRIPTS / "lacking.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_with(python: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": python}
    return subprocess.run(
        [SCRIPTS / "run.sh"], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/no/such/python", "is not a program that can be run"),
        ("/bin/true", "no working Python, 3.11 or later is needed"),
        ("/bin/false", "no working Python, 3.11 or later is needed"),
    ],
)
def test_what_is_no_python_is_refused_in_one_line(tmp_path: Path, python: str, reason: str) -> None:
    done = run_with(python, tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert reason in done.stderr
    assert python in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_old_python_is_refused_with_its_version(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *platform*) echo Python 3.10.1;; *) echo False;; esac\n')
    python.chmod(0o755)
    assert "Python 3.10.1, 3.11 or later is needed" in run_with(str(python), tmp_path).stderr


def test_nothing_is_lacking_where_the_tests_run(lacking: ModuleType) -> None:
    requirements = lacking.read_requirements("test")
    assert {"torch>=2.11", "mlxtend", "pytest"} <= set(requirements)
    assert list(lacking.find_lacking(requirements, lacking.find_installed())) == []


def test_what_is_lacking_is_named_and_what_is_there_is_not(lacking: ModuleType) -> None:
    assert list(lacking.find_lacking(["numpy", "no-such-thing>=3"], {"numpy": "1.0"})) == ["no-such-thing>=3"]


def test_what_is_importable_but_unknown_to_installers_is_there(lacking: ModuleType) -> None:
    assert list(lacking.find_lacking(["torch>=2.11"], {})) == []


@pytest.mark.parametrize("old", ["2.9.1", "1.13", "2.10.0+cu128"])
def test_an_older_torch_is_refused_and_not_replaced(
    lacking: ModuleType, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        list(lacking.find_lacking(["torch>=2.11"], {"torch": old}))
    assert f"torch {old}, 2.11 or later is needed" in capsys.readouterr().out


@pytest.mark.parametrize("present", ["2.11.0", "2.13.0+cpu", "2.14.1", "3.0"])
def test_a_torch_that_is_recent_enough_stays(lacking: ModuleType, present: str) -> None:
    assert list(lacking.find_lacking(["torch>=2.11"], {"torch": present})) == []


def test_pins_hold_what_is_there_and_set_the_rest(lacking: ModuleType, tmp_path: Path) -> None:
    lacking.write_pins(tmp_path / "pins", {"torch": "2.12.1+cu126", "setuptools": "65.5.0", "partition-pipeline": "0"})
    pins = (tmp_path / "pins").read_text().splitlines()
    assert "torch==2.12.1+cu126" in pins
    assert not {pin for pin in pins if pin.startswith("partition-pipeline")}
    constraints = dict(lacking.read_constraints())
    assert f"rich=={constraints['rich']}" in pins
    assert f"setuptools=={constraints['setuptools']}" in pins
    assert len(pins) == len({pin.partition("==")[0] for pin in pins})


def test_constraints_name_every_requirement_and_torch_exactly(lacking: ModuleType) -> None:
    constraints = {lacking.normalise(name): value for name, value in lacking.read_constraints()}
    names = {lacking.normalise(line.partition(">=")[0]) for line in lacking.read_requirements("test")}
    assert names <= constraints.keys()
    assert constraints["torch"] == "2.13.0"
    assert all(value for value in constraints.values())


def test_lacking_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPTS / "lacking.py"), "data", str(tmp_path / "pins")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "torch>=2.11" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "partition-pipeline"
