"""`partition memory`: of the plan, of a candidate by name, of a plan file, and where nothing fits."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from partition.cli import main
from tests.cli.conftest import Run, record


@pytest.fixture
def run(on_small: Run) -> Run:
    return partial(on_small, "memory")


def test_it_is_of_the_chosen_plan(run: Run, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", small, "--json"])
    plan = json.loads(capsys.readouterr().out)
    chosen = next(one for one in plan["candidates"] if one["name"] == plan["chosen"])
    document = record(run)
    assert (document["schema_version"], document["config"]) == (1, "small")
    assert (document["candidate"], document["feasible"]) == (plan["chosen"], True)
    peaks = [one["training"]["peak_bytes"] for one in document["devices"]]
    assert peaks == chosen["predicted"]["peak_bytes"]
    assert "curve" not in document
    assert record(run, "--plan", "runs/small/plan.json") == document
    assert record(run, "--strategy", plan["chosen"]) == document


def test_the_text_has_every_part(run: Run) -> None:
    code, out, err = run("--strategy", "pipeline-2x4-1f1b")
    assert (code, err) == (0, "")
    for part in ("memory of pipeline-2x4-1f1b", "Layers (", "Devices, when each holds most", "Peaks of training",
                 "largest that fits", "Largest minibatch of every schedule, 4 microbatches"):  # fmt: skip
        assert part in out
    assert "Memory against" not in out


def test_the_verb_answers_where_nothing_fits(run: Run) -> None:
    tight = "cluster.devices={count: 1, kind: simulated, memory: 1000 B}"
    document = record(run, tight)
    assert (document["candidate"], document["feasible"]) == ("whole", False)
    assert {one["minibatch_size"] for one in document["largest"]} == {0}
    assert run(tight)[1].count("It does not fit: simulated:0 would hold") == 1
    assert record(run, tight, "planner.strategies=[accumulate]")["candidate"] == "whole"


def test_microbatches_are_those_asked_for_or_planned(run: Run) -> None:
    def counts(*arguments: str) -> set[int]:
        found = record(run, *arguments)["largest"]
        return {one["num_microbatches"] for one in found if one["strategy"] == "pipeline"}

    assert counts() == {4}
    assert counts("planner.num_microbatches=[2,5]") == {2, 5}
    assert counts("--microbatches", "3") == {3}


def test_the_curve_is_told_and_drawn(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--strategy", "whole", "--curve")
    assert (code, out.count("Memory against")) == (0, 2)
    code, out, _ = run("--strategy", "whole", "--out-file", "c.svg")
    assert (code, out.count("Memory against"), out.splitlines()[-1]) == (0, 2, "Written to c.svg")
    assert "<svg" in (tmp_path / "c.svg").read_text()
    assert record(run, "--strategy", "whole", "--curve")["curve"]["by_minibatch"][-1]["minibatch_size"] == 44


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "nope"], "--strategy nope: no such candidate; there are"),
        (["--strategy", "accumulate-1"], "--strategy accumulate-1: no such candidate; there are"),
        (["--strategy", "pipeline-8x4-1f1b"], "pipeline-8x4-1f1b takes 8 devices, there are 4; take one of fewer"),
        (["--strategy", "accumulate-23"], "--strategy accumulate-23: cannot be laid out: 23 microbatches, but the"),
        (["--strategy", "whole", "--plan", "x.json"], "both name what to look at"),
        (["--plan", "none.json"], "none.json: cannot be read"),
        (["--microbatches", "0"], "--microbatches 0: give 1 to 1024"),
        (["--microbatches", "1025"], "--microbatches 1025: give 1 to 1024"),
        (["--out-file", "c.pdf"], "end it in .svg, .png"),
        (["--out-file", "none/c.svg"], "cannot be written"),
        (["training.minibatch_size=0"], "training.minibatch_size"),
        (["--strategy", "pipeline-3x4-zbv", "planner.num_stages=[6]"], "cannot be laid out: 6 stages"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_where_nothing_fits_one_pass_is_told_of_once(run: Run) -> None:
    """accumulate-1 stood beside whole, which it is."""
    names = [
        one["name"] for one in record(run, "cluster.devices={count: 1, kind: simulated, memory: 1000 B}")["largest"]
    ]
    assert names == ["whole", "accumulate-4"]


def test_what_it_names_is_trained_with_that_minibatch(run: Run, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The planner considers one or two numbers of microbatches a replica, and refused the names of others."""
    tight = "cluster.devices={count: 2, kind: simulated, memory: 8 KiB}"
    fits = record(run, tight, "planner.num_microbatches=null", "--microbatches", "3")["largest"]
    (fit,) = (one for one in fits if one["name"] == "data_parallel-2x3")
    train = ["train", small, tight, "planner.num_microbatches=null", "training.steps=1", "--strategy", fit["name"]]
    assert main([*train, f"training.minibatch_size={fit['minibatch_size']}", "data.num_examples=500", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [one["measured_peak_bytes"] for one in summary["per_device"]] == fit["peak_bytes"]
    assert main([*train, f"training.minibatch_size={fit['minibatch_size'] + 1}", "data.num_examples=500"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("partition: data_parallel-2x3: needs ")
    assert len(error.splitlines()) == 1
