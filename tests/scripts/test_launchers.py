"""The launchers: usage, what they start, and a run on two hosts that are two network namespaces."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
LAUNCHERS = ["launch_one_machine.sh", "launch_machines.sh", "launch_slurm.sh", "two_hosts.sh"]


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / name, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def write_program(path: Path, text: str) -> str:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def echo(tmp_path: Path) -> str:
    """An interpreter that runs what is given by -c and shows every other command."""
    return write_program(tmp_path / "echo", f'[[ $1 == -c ]] && exec {sys.executable} "$@"\nprintf "%s\\n" "$*"')


@pytest.fixture
def stub(tmp_path: Path) -> str:
    """An interpreter that runs the stub rank in place of `partition train`."""
    text = f"""
    for argument in "$@"; do
        case $argument in partition) given+=(stub_rank) ;; train) ;; *) given+=("$argument") ;; esac
    done
    PYTHONPATH=$PYTHONPATH:{ROOT}/tests/runtime exec {sys.executable} "${{given[@]}}"
    """
    return write_program(tmp_path / "stub", text)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_without_arguments_the_usage_is_shown(name: str) -> None:
    done = run(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"scripts/{name} " in done.stderr
    assert not any(line.startswith("#") for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("launch_one_machine.sh", ["two", "train", "x.yaml"]),
        ("launch_machines.sh", ["host", "2", "2", "train", "x.yaml"]),
        ("launch_machines.sh", ["host:1", "2", "0", "train", "x.yaml"]),
        ("launch_slurm.sh", ["0", "train", "x.yaml"]),
        ("two_hosts.sh", ["--rate"]),
        ("two_hosts.sh", ["true"]),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: list[str]) -> None:
    done = run(name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_an_interpreter_that_is_none_is_refused_in_one_line() -> None:
    done = run("launch_one_machine.sh", "2", "train", "x.yaml", PYTHON="/no/such/python")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "/no/such/python is not a program" in done.stderr


def test_one_machine(echo: str) -> None:
    done = run("launch_one_machine.sh", "2", "train", "x y.yaml", "a=1", PYTHON=echo)
    assert done.stdout == "-m partition train x y.yaml a=1 --nproc 2\n"


def test_several_machines(echo: str) -> None:
    done = run("launch_machines.sh", "127.0.0.1:5000", "2", "4", "train", "x.yaml", PYTHON=echo, RUN_ID="7")
    assert done.stdout == (
        "-m torch.distributed.run --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:5000 --rdzv-id 7 "
        "--rdzv-conf is_host=true,join_timeout=300 --nnodes 2 --nproc-per-node 4 --max-restarts 0 "
        "-m partition train x.yaml\n"
    )


def test_an_endpoint_that_no_machine_has_is_refused(echo: str) -> None:
    done = run("launch_machines.sh", "no.such.host.invalid:5000", "2", "4", "train", "x.yaml", PYTHON=echo)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the endpoint no.such.host.invalid:5000 cannot be reached" in done.stderr


def test_slurm(tmp_path: Path) -> None:
    write_program(tmp_path / "scontrol", '[[ $* == "show hostnames node[3-4]" ]] && printf "node3\\nnode4\\n"')
    write_program(tmp_path / "srun", 'printf "%s\\n" "$RUN_ID $*"')
    done = run(
        "launch_slurm.sh",
        *("4", "train", "x.yaml"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_JOB_ID="60001",
        SLURM_JOB_NODELIST="node[3-4]",
        SRUN_OPTIONS="--cpu-bind=none",
    )
    assert done.stdout == (
        "60001 --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --cpu-bind=none "
        f"{SCRIPTS}/launch_machines.sh node3:20001 2 4 train x.yaml\n"
    )


def test_slurm_without_an_allocation_is_refused() -> None:
    done = run("launch_slurm.sh", "4", "train", "x.yaml", SLURM_JOB_ID="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck")
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS.glob("*.sh")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def on_two_hosts(stub: str, *command: str) -> subprocess.CompletedProcess[str]:
    done = run("two_hosts.sh", *command, PYTHON=stub)
    if "skipped" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps"
    path.mkdir()
    return path


MACHINES = ["scripts/launch_machines.sh", "ENDPOINT", "2"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_two_hosts_meet(stub: str, steps: Path) -> None:
    done = on_two_hosts(stub, "--rate", "100mbit", "--", *MACHINES, "1", "train", str(steps), "--steps", "20")
    assert done.returncode == 0, done.stderr
    assert sorted(line[:17] for line in done.stdout.splitlines()) == ["rank 0 of 2 is do", "rank 1 of 2 is do"]
    assert_nothing_is_left()


@pytest.mark.slow
def test_a_rank_that_dies_on_another_host_is_named(stub: str, steps: Path) -> None:
    # With numbers of processes of its own, each host knows of the other's processes by their heartbeats alone.
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    done = on_two_hosts(stub, "--", *apart, *MACHINES, "1", "train", str(steps), "--fault", "1:exit")
    assert done.returncode == 1
    assert "rank 1 (process " in done.stderr
    assert " gives no sign of life" in done.stderr
    assert_nothing_is_left()


@pytest.mark.slow
def test_a_signal_ends_both_hosts(stub: str, steps: Path) -> None:
    command = [SCRIPTS / "two_hosts.sh", "--", *MACHINES, "1", "train", str(steps)]
    with subprocess.Popen(command, env=os.environ | {"PYTHON": stub}, stderr=subprocess.PIPE, text=True) as process:
        until_s = time.monotonic() + 60
        while len(list(steps.glob("*.pid"))) < 2 and process.poll() is None:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    if "skipped" in err:
        pytest.skip(err.strip())
    assert process.returncode == 143
    assert {path.name for path in steps.glob("*.saved")} == {"0.saved", "1.saved"}
    assert_nothing_is_left()


def assert_nothing_is_left() -> None:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "partition" not in listed
    assert not re.search(r" p[ab]\d+@", links)
