"""Runs of a few stub ranks under the launcher: one answer to why a run ended, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partition.runtime.launch import rank_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

LAUNCH = """
import sys
from partition.runtime.launch import launch
outcome = launch(["stub_rank", *sys.argv[2:]], int(sys.argv[1]))
print(outcome.traceback or "", end="", file=sys.stderr)
print(outcome.message or "", file=sys.stderr)
sys.exit(outcome.exit_code)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a launcher with so many ranks, on a folder of their own where several runs are started."""
    started: list[subprocess.Popen[str]] = []

    def start_run(num_ranks: int, *options: str, folder: str = ".") -> subprocess.Popen[str]:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        command = [sys.executable, "-c", LAUNCH, str(num_ranks), str(path), *options]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment |= {"PYTHONPATH": f"{ROOT}:{HERE}", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, cwd=path, **pipes))
        return started[-1]

    yield start_run
    for process in started:
        process.kill()
        process.communicate()


def wait_for_pids(folder: Path, num_ranks: int) -> list[int]:
    until_s = time.monotonic() + 60
    while len(list(folder.glob("*.pid"))) < num_ranks:
        assert time.monotonic() < until_s, "the ranks did not begin"
        time.sleep(0.05)
    time.sleep(1.5)
    return [int((folder / f"{rank}.pid").read_text()) for rank in range(num_ranks)]


def assert_gone(pids: list[int], within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until_s, f"orphans: {left}"
        time.sleep(0.05)


def test_each_rank_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in rank_environment(1)
    assert rank_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert rank_environment(10_000)["OMP_NUM_THREADS"] == "1"


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    environment = rank_environment(2)
    assert environment["OMP_NUM_THREADS"] == "5"
    assert environment["GLOO_SOCKET_IFNAME"] == "eth7"


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(start: Any) -> None:
    runs = [start(2, "--steps", "50", folder=name) for name in ("a", "b")]
    for run in runs:
        out, err = run.communicate(timeout=60)
        threads = max(1, len(os.sched_getaffinity(0)) // 2)
        lines = [f"rank {rank} of 2 is done, {threads} threads" for rank in (0, 1)]
        assert (run.returncode, sorted(out.splitlines()), err.strip()) == (0, lines, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("1:run", 4, "rank 1 failed: step 3: loss is nan; try a tenth of the learning rate"),
        ("2:bad", 2, "rank 2 failed: in.yaml: no such file; give one that exists"),
    ],
)
def test_a_failure_is_told_once(start: Any, fault: str, code: int, message: str) -> None:
    run = start(3, "--fault", fault)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (code, "", message + "\n")


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_is_told_with_its_traceback(start: Any) -> None:
    run = start(3, "--fault", "0:bug")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.count("Traceback") == 1
    assert err.endswith("KeyError: 'a bug'\nrank 0 failed: KeyError: 'a bug'\n")


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_killed_rank_is_named_and_all_end(start: Any, tmp_path: Path, dead: int) -> None:
    run = start(3)
    pids = wait_for_pids(tmp_path, 3)
    os.kill(pids[dead], signal.SIGKILL)
    killed_s = time.monotonic()
    out, err = run.communicate(timeout=20)
    assert time.monotonic() - killed_s < 10
    assert (run.returncode, out) == (4, "")
    assert err.startswith(f"rank {dead} (process {pids[dead]} on ")
    assert err.endswith(f"; rank {dead} was ended by SIGKILL\n")
    assert err.count("\n") == 1
    assert_gone(pids, within_s=1)


@pytest.mark.slow
def test_a_stopped_rank_is_named_at_the_time_out(start: Any, tmp_path: Path) -> None:
    run = start(3, "--patience", "5")
    pids = wait_for_pids(tmp_path, 3)
    os.kill(pids[1], signal.SIGSTOP)
    stopped_s = time.monotonic()
    _, err = run.communicate(timeout=30)
    assert 4 < time.monotonic() - stopped_s < 15
    assert run.returncode == 4
    assert err.startswith(f"rank 1 (process {pids[1]} on ")
    assert " is stopped" in err
    assert_gone(pids, within_s=1)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_ends_all_after_saving(start: Any, tmp_path: Path, signum: int, code: int) -> None:
    run = start(2)
    pids = wait_for_pids(tmp_path, 2)
    run.send_signal(signum)
    out, err = run.communicate(timeout=20)
    assert (run.returncode, out, err.strip()) == (code, "", "")
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert_gone(pids, within_s=1)


@pytest.mark.slow
def test_a_signal_to_the_launcher_while_a_rank_is_blocked(start: Any, tmp_path: Path) -> None:
    run = start(2, "--fault", "1:sleep", "--grace", "2")
    pids = wait_for_pids(tmp_path, 2)
    run.send_signal(signal.SIGTERM)
    sent_s = time.monotonic()
    _, err = run.communicate(timeout=20)
    assert time.monotonic() - sent_s < 10
    assert run.returncode == 143
    assert "ended by SIGTERM without saving" in err
    assert_gone(pids, within_s=1)


@pytest.mark.slow
def test_ranks_do_not_outlive_their_launcher(start: Any, tmp_path: Path) -> None:
    run = start(2)
    pids = wait_for_pids(tmp_path, 2)
    run.kill()
    run.wait()
    assert_gone(pids, within_s=10)
    # They had the time to save.
    assert len(list(tmp_path.glob("*.saved"))) == 2


@pytest.mark.slow
def test_torchrun_shows_the_rank_to_blame_with_its_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    command += ["-m", "stub_rank", str(tmp_path), "--fault", "1:bug"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    root = done.stderr.partition("Root Cause")[2]
    assert "rank      : 1 (" in root
    assert "KeyError: 'a bug'" in root
    assert "stub_rank.py" in root
