"""The launchers: usage, what they start, and a run on two hosts that are two network namespaces."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
LAUNCHERS = ["launch_one_machine.sh", "launch_machines.sh", "launch_slurm.sh", "two_hosts.sh"]


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [SCRIPTS / name, *arguments], env=given, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def echo(tmp_path: Path) -> str:
    """An interpreter that shows what it is asked to run."""
    return write_program(tmp_path / "echo", 'printf "%s\\n" "$*"')


def write_program(path: Path, text: str) -> str:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_without_arguments_the_usage_is_shown(name: str) -> None:
    done = run(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"scripts/{name} " in done.stderr
    assert not any(line.startswith(("#", "set -", "if ")) for line in done.stderr.splitlines())


def test_one_machine(echo: str) -> None:
    done = run("launch_one_machine.sh", "2", "x y.yaml", "a=1", PYTHON=echo)
    assert done.stdout == (
        "-m torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0 --max-restarts 0 "
        "-m partition train x y.yaml a=1\n"
    )


@pytest.mark.parametrize(
    ("address", "is_host"), [("10.0.0.1", "is_host=true"), ("10.0.0.2", "is_host=false"), ("", "")]
)
def test_several_machines(echo: str, address: str, is_host: str) -> None:
    done = run("launch_machines.sh", "2", "4", "10.0.0.1:5000", "x.yaml", PYTHON=echo, RUN_ID="7", LOCAL_ADDR=address)
    place = f"--local-addr {address} --rdzv-conf {is_host} " if address else ""
    assert done.stdout == (
        "-m torch.distributed.run --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:5000 "
        f"--rdzv-id 7 --max-restarts 0 {place}-m partition train x.yaml\n"
    )


def test_slurm(tmp_path: Path) -> None:
    write_program(tmp_path / "scontrol", '[[ $* == "show hostnames node[3-4]" ]] && printf "node3\\nnode4\\n"')
    write_program(tmp_path / "srun", 'printf "%s\\n" "$RUN_ID $*"')
    slurm = {"SLURM_JOB_ID": "60001", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("launch_slurm.sh", "x.yaml", PATH=path, DEVICES_PER_NODE="4", **slurm)
    launcher = f"{SCRIPTS}/launch_machines.sh 2 4 node3:20001 x.yaml"
    assert done.stdout == f"60001 --kill-on-bad-exit=1 {launcher}\n"


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck")
    command = ["shellcheck", "-x", *map(str, sorted(SCRIPTS.glob("*.sh")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_two_hosts_train_to_the_bits_of_one_process(tmp_path: Path) -> None:
    config = str(ROOT / "configs/digits.yaml")
    common = [config, "training.steps=5", "training.epochs=null", "--strategy", "pipeline-2x4-1f1b", "--out"]
    interpreter = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = run("two_hosts.sh", "--rate", "100mbit", *common, str(tmp_path / "two"), **interpreter)
    if "skipped" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    here = [sys.executable, "-m", "partition", "train", *common, str(tmp_path / "one")]
    subprocess.run(here, env=os.environ | {"PYTHONPATH": str(ROOT), **interpreter}, check=True, capture_output=True)
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "partition-" not in listed
    assert not re.search(r" p[ab]\d+@", links)


def losses(path: Path) -> list[str]:
    found = [json.loads(line)["loss_hex"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert len(found) == 5
    return found
