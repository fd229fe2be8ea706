"""Gradient noise from the command line: a run writes it, a comparison reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.cli import main

MEASURED = ("training.noise=true", "--strategy", "pipeline-2x4-1f1b")


def steps(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def read(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def test_a_run_writes_what_a_comparison_reads(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small, *MEASURED, "training.steps=30", "--out", "run"]) == 0
    assert "Gradient noise: " in capsys.readouterr().out
    noise = read("run/noise.json")
    assert (noise["minibatch_size"], noise["num_examples"], noise["steps"]) == (22, 64, 20), "every third step is short"
    assert noise["reason"] == "" or not noise["identifiable"]
    summary = read("run/summary.json")["noise"]
    assert summary == {key: noise[key] for key in summary}
    assert main(["plan", small, "planner.noise=run/noise.json"]) == 0
    text = capsys.readouterr().out
    assert f"Gradient noise: {'B_noise' if noise['identifiable'] else 'not identifiable'}" in text
    assert "on minibatches of 22, sgd at 0.1" in text
    assert main(["plan", small, "planner.noise=run/noise.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["noise"] == noise


def test_a_comparison_says_where_the_noise_is_of_another_experiment(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", small, *MEASURED, "--out", "run"]) == 0
    changes = ["model.activation=relu", "optimizer={name: adam, lr: 0.01}"]
    assert main(["plan", small, *changes, "planner.noise=run/noise.json"]) == 0
    text = capsys.readouterr().out
    assert "another experiment: optimizer sgd, here adam; model.activation 'gelu', here 'relu'." in text


def test_a_run_without_noise_writes_none(small: str) -> None:
    assert main(["train", small, "--strategy", "accumulate-4", "--out", "run"]) == 0
    assert not Path("run/noise.json").exists()
    assert read("run/summary.json")["noise"] is None
    assert all("tr_sigma" not in step for step in steps("run"))


def test_a_run_that_goes_on_has_the_noise_of_all_its_steps(small: str) -> None:
    assert main(["train", small, *MEASURED, "training.steps=24", "--out", "straight", "--json"]) == 0
    assert main(["train", small, *MEASURED, "training.steps=14", "--out", "run", "--json"]) == 0
    again = ["train", small, *MEASURED, "training.steps=24", "--out", "run", "--resume", "latest", "--json"]
    assert main(again) == 0
    assert read("run/noise.json") == read("straight/noise.json")
    keys = ("step", "tr_sigma", "grad_sq_norm", "b_noise")
    rows = [[{key: step.get(key) for key in keys} for step in steps(run)] for run in ("run", "straight")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["train", "small.yaml", "training.noise=1"], "training.noise: 1 is not true or false"),
        (["plan", "small.yaml", "training.noise=true", "training.minibatch_size=1"], "take at least 2"),
        (["plan", "small.yaml", "planner.noise=missing.json"], "missing.json: No such file"),
        (["plan", "small.yaml", "planner.noise=small.yaml"], "not a noise file"),
        (["plan", "small.yaml", "planner.noise=3"], "planner.noise"),
        (["train", "small.yaml", "training.noise=true", "--strategy", "sharded-2"], "cannot measure noise"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    small: str, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    del small
    assert main(arguments) in (2, 3)
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1
