"""`train --resume`: the run goes on, in its directory, as if it had never ended."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from partition.cli import main

ROOT = Path(__file__).parents[2]
STEPS = list(range(1, 11))


def losses(run: Path) -> dict[int, str]:
    """By step, in the order of the file."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss_hex"] for line in lines}


def summary(run: Path) -> dict[str, object]:
    """Without what the clock has a part in."""
    found = json.loads((run / "summary.json").read_text())
    return {"final": found["final"], "num_steps": found["num_steps"]}


@pytest.fixture
def straight(small: str) -> Path:
    """Ten steps without a break."""
    assert main(["train", small, "--strategy", "accumulate-4", "--out", "straight", "--json"]) == 0
    return Path("straight")


def test_a_run_goes_on_in_its_directory_on_another_number_of_stages(small: str, straight: Path) -> None:
    assert main(["train", small, "training.steps=5", "--strategy", "pipeline-3x4-1f1b", "--json"]) == 0
    assert main(["train", small, "--resume", "latest", "--strategy", "pipeline-2x4-gpipe", "--json"]) == 0
    run = Path("runs/small")
    assert losses(run) == losses(straight)
    assert list(losses(run)) == STEPS
    assert summary(run) == summary(straight)
    assert not Path("runs/small.1").exists()
    assert len((run / "command.txt").read_text().splitlines()) == 2
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "latest", "step-00000005", "step-00000008", "step-00000010",
    }  # fmt: skip
    last = "checkpoints/step-00000010/layer-00002.safetensors"
    assert (run / last).read_bytes() == (straight / last).read_bytes()


def test_going_back_takes_later_steps_off_the_record(small: str, straight: Path) -> None:
    before = losses(straight)
    arguments = ["train", small, "--strategy", "accumulate-4", "--out", "straight", "--json", "training.steps=6"]
    assert main([*arguments, "--resume", "4"]) == 0
    assert losses(straight) == {step: before[step] for step in range(1, 7)}


def test_a_line_that_a_kill_cut_short_is_written_anew(small: str, straight: Path) -> None:
    file, before = straight / "metrics.jsonl", losses(straight)
    file.write_text(file.read_text()[:-30])
    arguments = ["train", small, "--strategy", "accumulate-4", "--out", "straight", "--json"]
    assert main([*arguments, "--resume", "8"]) == 0
    assert losses(straight) == before


def test_from_another_run_a_new_one_begins(small: str, straight: Path) -> None:
    arguments = [
        "train",
        small,
        "--strategy",
        "accumulate-4",
        "--json",
        "--resume",
        "straight/checkpoints/step-00000004",
    ]
    assert main(arguments) == 0
    assert losses(Path("runs/small")) == {step: losses(straight)[step] for step in STEPS[4:]}
    assert list(losses(straight)) == STEPS


def test_a_run_that_was_killed_after_its_last_save_only_ends(small: str, straight: Path) -> None:
    before = summary(straight)
    (straight / "summary.json").unlink()
    assert (
        main(["train", small, "--strategy", "accumulate-4", "--out", "straight", "--json", "--resume", "latest"]) == 0
    )
    assert summary(straight) == before


def test_where_no_step_is_left_nothing_is_said_to_be_measured(
    small: str, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a step on it the peak of another layout was held against its prediction, and missed it."""
    del straight
    capsys.readouterr()
    assert main(["train", small, "--resume", "latest", "--out", "straight", "--strategy", "pipeline-2x4-gpipe"]) == 0
    out = capsys.readouterr().out
    assert "Nothing was left to train: 10 steps were done before" in out
    assert out.count("not measured") == 2
    assert "Step time" not in out


def test_other_microbatches_are_told_and_go_on(small: str, straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del straight
    arguments = [
        "train",
        small,
        "training.steps=12",
        "planner.num_microbatches=2",
        "--strategy",
        "accumulate-2",
        "--json",
    ]
    assert main([*arguments, "--out", "straight", "--resume", "latest"]) == 0
    said = capsys.readouterr().err
    assert "not bit-identical to going on as before: num_microbatches was 4 and is 2" in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--resume", "latest", "optimizer.lr=0.2"], 5, "optimizer.lr is 0.1 in the checkpoint and 0.2"),
        (["--resume", "latest", "model.activation=relu"], 5, "model.activation is gelu in the checkpoint and relu"),
        (["--resume", "latest", "training.steps=9"], 2, "10 steps are done and the experiment asks for 9"),
        (["--resume", "7"], 2, "there is no step-00000007"),
        (["--resume", "nowhere"], 2, "nowhere: there is no such checkpoint"),
        (["--resume", "latest", "--allow-change", "model.bias"], 2, "the tensors of a checkpoint depend on it"),
        (["--allow-change", "optimizer.lr"], 2, "is for --resume"),
    ],
)
def test_what_does_not_match_is_told_and_the_run_left_alone(
    small: str, straight: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    files = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    assert main(["train", small, "--strategy", "accumulate-4", "--out", "straight", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()} == files


def test_an_allowed_change_goes_on(small: str, straight: Path) -> None:
    arguments = ["--resume", "latest", "optimizer.lr=0.2", "--allow-change", "optimizer.lr", "training.steps=12"]
    assert main(["train", small, "--strategy", "accumulate-4", "--out", "straight", "--json", *arguments]) == 0
    assert list(losses(straight)) == [*STEPS, 11, 12]


def test_a_damaged_checkpoint_leaves_the_metrics_as_they_are(
    small: str, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found out before anything in the run directory is touched."""
    (straight / "checkpoints" / "step-00000004" / "layer-00001.safetensors").write_bytes(b"")
    before = losses(straight)
    arguments = ["train", small, "--strategy", "accumulate-4", "--out", "straight", "--resume", "4"]
    assert main(arguments) == 5
    assert "layer-00001.safetensors: is damaged: 0 bytes, expected" in capsys.readouterr().err
    assert losses(straight) == before


def test_a_checkpoint_within_the_run_that_makes_way_is_refused(
    small: str, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight / "checkpoints" / "step-00000004", straight / "best")
    arguments = ["train", small, "--strategy", "accumulate-4", "--out", "straight", "--resume", "straight/best"]
    assert main(arguments) == 2
    assert "which makes way for this run; give another --out" in capsys.readouterr().err
    assert (straight / "best").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_the_run_that_is_not(small: str) -> None:
    """SIGKILL at random moments, on one to four stages; each process goes on where the last had saved."""
    settings = ["training.steps=400", "checkpoint.every_steps=3", "checkpoint.keep=2"]
    assert main(["train", small, *settings, "--strategy", "accumulate-4", "--out", "straight", "--json"]) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    numbers, run, num_killed = random.Random(0), Path("runs/small"), 0
    while not (run / "summary.json").exists():
        name = numbers.choice(["accumulate-4", "pipeline-2x4-1f1b", "pipeline-4x4-gpipe"])
        resume = ["--resume", "latest"] if (run / "checkpoints" / "latest").exists() else []
        command = [sys.executable, "-m", "partition", "train", small, *settings, "--strategy", name, "--json", *resume]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        start = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text() != start:
                time.sleep(numbers.uniform(0, 0.6))
                break
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error.decode()
        num_killed += process.returncode != 0
    assert num_killed > 2
    assert losses(run) == losses(Path("straight"))
    assert summary(run) == summary(Path("straight"))
