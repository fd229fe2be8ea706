"""`partition curvature`: the largest eigenvalue of the Hessian of J on any split that trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.cli import main

Capture = pytest.CaptureFixture[str]


def found(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert main(["curvature", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_same_on_any_split_and_as_predicted(small: str, capsys: Capture) -> None:
    whole = found(capsys, small, "--strategy", "accumulate-4", "--examples", "all")
    split = found(capsys, small, "--strategy", "pipeline-4x4-1f1b", "--examples", "all")
    assert whole["schema_version"] == 1
    assert (whole["num_examples"], whole["num_minibatches"], whole["checkpoint"], whole["step"]) == (64, 3, None, 0)
    assert (whole["num_stages"], split["num_stages"], split["candidate"]) == (1, 4, "pipeline-4x4-1f1b")
    assert split["is_converged"]
    assert split["residual"] <= split["tolerance"] * split["eigenvalue"]
    for key in ("eigenvalue", "residual", "num_products", "most_negative"):
        assert whole[key] == split[key]
    product = split["product"]
    assert product["measured_peak_bytes"] == product["predicted_peak_bytes"]
    assert 2.0 < product["flop_ratio"] == product["product_flop"] / product["gradient_flop"] < 8 / 3
    assert product["clock"] == "simulated"
    assert product["measured_s"] == pytest.approx(product["predicted_s"], rel=0.05), "the third minibatch is short"


def test_of_a_checkpoint_and_of_the_plan_of_its_training(small: str, capsys: Capture) -> None:
    assert main(["train", small, "--strategy", "pipeline-2x4-1f1b", "--json"]) == 0
    capsys.readouterr()
    begun = found(capsys, small, "--plan", "runs/small/plan.json")
    trained = found(capsys, small, "--plan", "runs/small/plan.json", "--checkpoint", "latest")
    earlier = found(capsys, small, "--plan", "runs/small/plan.json", "--checkpoint", "4")
    assert begun["candidate"] == trained["candidate"] == "pipeline-2x4-1f1b"
    assert [one["step"] for one in (begun, earlier, trained)] == [0, 4, 10]
    assert len({one["eigenvalue"] for one in (begun, earlier, trained)}) == 3
    assert trained["checkpoint"] == "runs/small/checkpoints/step-00000010"


def test_for_people(small: str, capsys: Capture) -> None:
    assert main(["curvature", small, "--examples", "22"]) == 0
    said = capsys.readouterr().out
    assert "Hessian of J on 22 examples, initial parameters, on " in said
    assert "converged after " in said
    assert main(["curvature", small, "--max-products", "1"]) == 0
    assert "not converged to 0.01 after 1 product; take more with --max-products" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--examples", "0"], 2, "--examples 0: give a number from 1 to 64"),
        (["--examples", "65"], 2, "--examples 65: give a number from 1 to 64"),
        (["--examples", "some"], 2, "--examples some: give a number"),
        (["--tolerance", "0"], 2, "--tolerance 0.0: give a number above 0"),
        (["--tolerance", "nan"], 2, "--tolerance nan: give a number above 0"),
        (["--tolerance", "1"], 2, "--tolerance 1.0: give a number above 0 and below 1"),
        (["--max-products", "0"], 2, "--max-products 0: give at least 1"),
        (["--strategy", "pipeline"], 2, "no such candidate"),
        (["--strategy", "sharded-2"], 2, "is for training, products with the Hessian take whole"),
        (["--strategy", "shrink-9"], 2, "is for training, products with the Hessian take whole"),
        (["--strategy", "pipeline-2x3-1f1b-recompute"], 2, "is for training, products with the Hessian take whole"),
        (["--strategy", "accumulate-3", "cluster.devices.memory=2 KiB"], 3, "accumulate-3, for products with the He"),
        (["--strategy", "whole", "--plan", "plan.json"], 2, "give one of them"),
        (["--plan", "absent.json"], 2, "cannot be read"),
        (["--checkpoint", "latest"], 2, "there are no checkpoints"),
        (["--nproc", "9"], 2, "takes 2 processes"),
        (["cluster.devices.memory=2 KiB"], 3, "no layout for products with the Hessian fits on 4 devices"),
        (["--strategy", "whole", "cluster.devices.memory=5 KiB"], 3, "whole, for products with the Hessian: needs"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    small: str, capsys: Capture, arguments: list[str], code: int, message: str
) -> None:
    assert main(["curvature", small, *arguments]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_sharded_plan_is_refused(small: str, capsys: Capture) -> None:
    Path("plans").mkdir()
    # Simulated devices have no sharded model to train, so none is chosen there.
    given = [small, "planner.strategies=[sharded]", "cluster.devices.kind=cpu"]
    assert main(["plan", *given, "--out", "plans", "--json"]) == 0
    capsys.readouterr()
    (plan,) = Path("plans").glob("*.json")
    assert main(["curvature", *given, "--plan", str(plan)]) == 2
    assert "torch's autograd, which has no program for products with the Hessian" in capsys.readouterr().err
