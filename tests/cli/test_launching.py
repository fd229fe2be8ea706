"""`--nproc N`: what is refused before anything starts, and what the ranks are started with."""

import argparse
from pathlib import Path

import pytest

from partition.cli import main
from partition.cli.launching import is_launcher, run_launched, without_nproc
from partition.errors import PartitionError

DIGITS = str(Path(__file__).resolve().parents[2] / "configs" / "digits.yaml")


@pytest.mark.parametrize(
    "given",
    [
        ["train", "--nproc", "2", "a.yaml", "x=1"],
        ["train", "a.yaml", "--nproc=2", "x=1"],
        ["train", "a.yaml", "x=1", "--np", "2"],
        ["train", "a.yaml", "x=1", "--n=2"],
    ],
)
def test_the_ranks_are_started_without_it(given: list[str]) -> None:
    assert without_nproc(given) == ["train", "a.yaml", "x=1"]


def test_everything_else_stays() -> None:
    given = ["train", "a.yaml", "--out", "--name", "--set", "nproc=3", "-n", "--json"]
    assert without_nproc(given) == given


def test_the_number_must_be_that_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["train", DIGITS, "--nproc", "7"])
    assert code == 2
    assert capsys.readouterr().err == "partition: --nproc 7: the plan runs in 2 processes; give --nproc 2\n"


def test_it_is_not_for_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(nproc=2)
    assert is_launcher(options)
    assert not is_launcher(argparse.Namespace(nproc=None))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PartitionError, match="--nproc 2 within torchrun"):
        is_launcher(options)


def test_bad_input_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", DIGITS, "training.minibatch_size=-1", "--nproc", "2"]) == 2
    assert capsys.readouterr().err.count("is too small") == 1


def test_the_command_is_launched_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from partition.record.outcome import Outcome
    from partition.runtime import launch

    seen = []

    def pretend(arguments: list[str], num_processes: int) -> Outcome:
        seen.append((arguments, num_processes))
        return Outcome(exit_code=4, message="rank 1 failed: nan", traceback="Traceback ...\n")

    monkeypatch.setattr(launch, "launch", pretend)
    options = argparse.Namespace(nproc=2, given=["train", DIGITS, "--nproc", "2"])
    assert run_launched(options, 2) == 4
    assert seen == [(["partition", "train", DIGITS], 2)]
    assert capsys.readouterr().err == "Traceback ...\npartition: rank 1 failed: nan\n"
