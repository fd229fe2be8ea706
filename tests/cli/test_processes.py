"""`train` in several processes: the same bits as in one, faults that end it, and going on afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from partition.cli import main
from partition.cli.processes import _without_nproc

ROOT = Path(__file__).parents[2]
PIPELINE_2, PIPELINE_3, ALONE = "pipeline-2x16-1f1b", "pipeline-3x16-1f1b", "accumulate-16"


@pytest.fixture(autouse=True)
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of threads gives other bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mnist(tmp_path: Path) -> str:
    """mnist.yaml's network, with the candidates that these tests name."""
    experiment = yaml.safe_load((ROOT / "configs/mnist.yaml").read_text())
    experiment["planner"] = {"strategies": ["accumulate", "pipeline"], "num_microbatches": 16}
    path = tmp_path / "mnist.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return str(path)


def start(*arguments: str, out: str) -> subprocess.Popen[str]:
    """The command in a process of its own, its output in one pipe."""
    command = [sys.executable, "-m", "partition", "train", *arguments, "--out", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], limit_s: float = 60) -> str:
    try:
        return process.communicate(timeout=limit_s)[0]
    finally:
        process.kill()


def ranks_of(out: str) -> list[int]:
    """Process numbers of the ranks of a run, in order of rank."""
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environment = dict(entry.partition(b"=")[::2] for entry in (path / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if out.encode() in words and b"RANK" in environment:
            found[int(environment[b"RANK"])] = int(path.name)
    return [found[rank] for rank in sorted(found)]


def wait_for_step(out: str, step: int, limit_s: float = 60) -> None:
    """Until so many steps are on disk."""
    path, end_s = Path(out, "metrics.jsonl"), time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"{out} did not come to step {step}")


def losses(out: str) -> list[str]:
    return [json.loads(line)["loss_hex"] for line in Path(out, "metrics.jsonl").read_text().splitlines()]


def weights(out: str) -> list[str]:
    """The SHA-256 of every layer's file of the last checkpoint, optimizer state included."""
    (document,) = sorted(Path(out, "checkpoints").glob("step-*"))[-1:]
    files = json.loads((document / "checkpoint.json").read_text())["files"]
    assert len(files) == 7
    return [file["sha256"] for file in files]


@pytest.mark.slow
def test_two_and_three_processes_and_a_killed_run_that_goes_on_give_the_bits_of_one(mnist: str) -> None:
    """Twelve steps: straight in one process; in 2; in 3, killed after a checkpoint and gone on with in 2."""
    options = (mnist, "training.steps=12", "training.epochs=null")
    assert "12 steps" in finish(start(*options, "--strategy", ALONE, out="one"))
    assert "12 steps" in finish(start(*options, "--strategy", PIPELINE_2, "--nproc", "2", out="two"))
    every = "checkpoint={every_steps: 4, keep: 3}"
    run = start(*options, every, "--strategy", PIPELINE_3, "--nproc", "3", out="three")
    wait_for_step("three", 6)
    os.kill(ranks_of("three")[1], signal.SIGKILL)
    assert "rank 1" in finish(run)
    resumed = start(*options, every, "--strategy", PIPELINE_2, "--nproc", "2", "--resume", "latest", out="three")
    assert "Run directory" in finish(resumed)
    assert losses("one") == losses("two") == losses("three")
    assert len(losses("one")) == 12
    assert weights("one") == weights("two") == weights("three")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("after_step", [0, 1, 5])
def test_the_rank_that_is_killed_is_named_and_the_others_end(mnist: str, rank: int, after_step: int) -> None:
    """As soon as it has started, or while it trains."""
    run = start(mnist, "--strategy", PIPELINE_3, "--nproc", "3", out="killed")
    if after_step:
        wait_for_step("killed", after_step)
    else:
        while len(ranks_of("killed")) < 3:
            time.sleep(0.02)
    processes = ranks_of("killed")
    os.kill(processes[rank], signal.SIGKILL)
    killed_s = time.monotonic()
    output = finish(run)
    assert time.monotonic() - killed_s < 10
    assert run.returncode == 4
    (line,) = [line for line in output.splitlines() if line.startswith("partition: ")]
    assert line.startswith((f"partition: rank {rank} has died", f"partition: rank {rank} was ended by SIGKILL"))
    assert "Traceback" not in output
    assert not ranks_of("killed")


@pytest.mark.slow
def test_a_stopped_rank_is_named_once_the_time_is_up(mnist: str) -> None:
    run = start(mnist, "training.timeout=3 s", "--strategy", PIPELINE_2, "--nproc", "2", out="stopped")
    wait_for_step("stopped", 2)
    stopped = ranks_of("stopped")[1]
    os.kill(stopped, signal.SIGSTOP)
    stopped_s = time.monotonic()
    output = finish(run)
    # The rank that is stopped is woken to end with the others: the launcher would wait for it for half a minute.
    assert 2.5 < time.monotonic() - stopped_s < 13
    assert run.returncode == 4
    (line,) = [line for line in output.splitlines() if line.startswith("partition: ")]
    assert line.startswith(f"partition: rank 1 is stopped (process {stopped} ")
    assert "noticed by rank 0, step " in line
    assert not ranks_of("stopped")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("target", ["launcher", "rank 0", "rank 1"])
def test_a_signal_ends_all_ranks_after_a_step_that_is_saved(
    mnist: str, number: signal.Signals, code: int, target: str
) -> None:
    """Ranks of a pipeline spend much of their time in a receive."""
    run = start(mnist, "--strategy", PIPELINE_2, "--nproc", "2", out="ended")
    wait_for_step("ended", 3)
    os.kill(run.pid if target == "launcher" else ranks_of("ended")[int(target[-1])], number)
    output = finish(run)
    assert run.returncode == code
    step = len(losses("ended"))
    assert f"partition: ended by {number.name} after step {step}, which is saved" in output
    assert Path("ended", "checkpoints", f"step-{step:08}").is_dir()
    assert not ranks_of("ended")


@pytest.mark.slow
def test_a_signal_ends_a_rank_that_waits_for_one_that_is_dead_to_it(mnist: str) -> None:
    """The other rank is stopped, so that the step can never end; the launcher is told to stop."""
    run = start(mnist, "--strategy", PIPELINE_2, "--nproc", "2", out="stuck")
    wait_for_step("stuck", 2)
    waiting, stopped = ranks_of("stuck")
    os.kill(stopped, signal.SIGSTOP)
    os.kill(run.pid, signal.SIGTERM)
    began_s = time.monotonic()
    while Path(f"/proc/{waiting}/cmdline").exists() and Path(f"/proc/{waiting}/cmdline").read_bytes():
        assert time.monotonic() - began_s < 10
        time.sleep(0.05)
    os.kill(stopped, signal.SIGKILL)
    assert "ended by SIGTERM while waiting for another rank" in finish(run)
    assert run.returncode == 143


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(mnist: str) -> None:
    options = (mnist, "training.steps=4", "training.epochs=null", "--strategy", PIPELINE_2, "--nproc", "2")
    runs = [start(*options, out=name) for name in ("left", "right")]
    assert all("Run directory" in finish(run) for run in runs)
    assert losses("left") == losses("right")


@pytest.mark.slow
def test_ranks_end_when_their_launcher_is_killed(mnist: str) -> None:
    run = start(mnist, "--strategy", PIPELINE_2, "--nproc", "2", out="orphans")
    wait_for_step("orphans", 1)
    run.kill()
    run.communicate()
    end_s = time.monotonic() + 10
    while ranks_of("orphans"):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def wait_for_ranks(out: str, after_s: float) -> None:
    """Until both processes are there, and for a while: they import, meet, build."""
    while len(ranks_of(out)) < 2:
        time.sleep(0.02)
    time.sleep(after_s)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.7, 1.4, 2.1])
def test_a_signal_before_the_first_step_ends_all_at_once_and_is_told_once(mnist: str, after_s: float) -> None:
    """A rank that has not got to its watch dies of it, and the others would wait for it where they wait for all."""
    run = start(mnist, "--strategy", PIPELINE_2, "--nproc", "2", out="early")
    wait_for_ranks("early", after_s)
    os.kill(run.pid, signal.SIGTERM)
    sent_s = time.monotonic()
    output = finish(run)
    assert time.monotonic() - sent_s < 10
    assert run.returncode == 143
    (line,) = [line for line in output.splitlines() if line.startswith("partition: ")]
    assert line.startswith("partition: ended by SIGTERM")
    assert not ranks_of("early")


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0])
def test_ranks_end_when_their_launcher_is_killed_before_the_first_step(mnist: str, after_s: float) -> None:
    run = start(mnist, "--strategy", PIPELINE_2, "--nproc", "2", out="early")
    wait_for_ranks("early", after_s)
    run.kill()
    end_s = time.monotonic() + 5
    while ranks_of("early"):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert "frame #" not in finish(run)


def start_torchrun(*arguments: str, out: str) -> subprocess.Popen[str]:
    """The same two ranks by torchrun itself."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, *launcher, "-m", "partition", "train", *arguments, "--out", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_takes_the_rank_that_is_killed_for_the_root_cause(mnist: str, rank: int) -> None:
    run = start_torchrun(mnist, "--strategy", PIPELINE_2, out="torchrun")
    wait_for_step("torchrun", 2)
    os.kill(ranks_of("torchrun")[rank], signal.SIGKILL)
    output = finish(run)
    cause = output[output.index("Root Cause (first observed failure):") :]
    assert f"rank      : {rank} (local_rank: {rank})" in cause
    assert "SIGKILL" in cause


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_ranks_on_the_same_step_told_once(mnist: str) -> None:
    """Torchrun shows the same words of every rank."""
    run = start_torchrun(mnist, "optimizer.lr=1e30", "--strategy", PIPELINE_2, out="infinite")
    output = finish(run)
    (line,) = [line for line in output.splitlines() if line.startswith("partition: ")]
    step = line.removeprefix("partition: ").split(":")[0]
    assert step.startswith("step ")
    assert f"RunError: {step}" in output[output.index("Root Cause") :]
    assert run.returncode == 1  # torchrun's own


def test_another_number_of_processes_is_refused_with_the_right_one(
    mnist: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", mnist, "--strategy", PIPELINE_2, "--nproc", "3", "--out", "wrong"]) == 2
    assert "takes 2 processes, one for each device; use --nproc 2" in capsys.readouterr().err
    assert not Path("wrong").exists()


@pytest.mark.parametrize("given", [["--nproc", "2"], ["--nproc=2"], ["--np", "2"], ["--n=2"]])
def test_the_ranks_are_started_without_the_option_however_it_was_written(given: list[str]) -> None:
    assert _without_nproc(["train", *given, "a.yaml", "--out", "n"]) == ["train", "a.yaml", "--out", "n"]
    assert _without_nproc(["train", "a.yaml", *given]) == ["train", "a.yaml"]


def test_an_option_that_is_another_stays() -> None:
    given = ["train", "a.yaml", "--", "-n", "--name=x", "--json", "training.nproc=3"]
    assert _without_nproc(given) == given
