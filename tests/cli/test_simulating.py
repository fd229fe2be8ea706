"""`partition simulate`: a plan, a candidate, a schedule; its figures are those of the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.cli import main

EXPERIMENT = """\
model: {in_features: 12, hidden_features: [10, 9, 11], out_features: 5, activation: gelu}
data: {source: synthetic, num_examples: 60}
training: {minibatch_size: 20, steps: 6}
optimizer: {lr: 1e-1, momentum: 0.9}
cluster:
  devices: {count: 2, kind: simulated, memory: %s, compute: 1 GFLOP/s, memory_bandwidth: 1 GB/s}
"""


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(EXPERIMENT % "1 MiB")
    (tmp_path / "mine.csv").write_text("0F0,0B0\n1F0,1B0\n")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*arguments: str) -> tuple[int, str, str]:
        return main(list(arguments)), *capsys.readouterr()

    return command


def planned(run: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run("plan", "small.yaml", "--json")[1])
    return document


def test_the_chosen_plan_is_simulated_as_it_is_predicted(run: Any) -> None:
    plan = planned(run)
    chosen = next(one for one in plan["candidates"] if one["name"] == plan["chosen"])
    for source in (["small.yaml"], ["--plan", "runs/small/plan.json"], ["small.yaml", "--strategy", plan["chosen"]]):
        code, out, err = run("simulate", *source, "--json")
        document = json.loads(out)
        assert (code, err, document["schema_version"], document["candidate"]) == (0, "", 1, plan["chosen"])
        assert document["step_s"] == chosen["predicted"]["step_s"]
        assert [rank["peak_bytes"] for rank in document["ranks"]] == chosen["predicted"]["peak_bytes"]
        assert [rank["limit_bytes"] for rank in document["ranks"]] == [2**20] * len(document["ranks"])
        for rank in document["ranks"]:
            assert max(held for _, held in rank["memory_over_time"]) == rank["peak_bytes"]


def test_it_is_told_in_words_with_memory_over_time(run: Any) -> None:
    code, out, _ = run("simulate", "small.yaml", "--strategy", "pipeline-2x4-1f1b")
    assert (code, "1f1b: 2 ranks, 4 microbatches" in out) == (0, True)
    assert "rank 1 simulated:1  |" in out
    assert "limit" in out


def test_overrides_are_taken_with_either_source(run: Any) -> None:
    name = ["--strategy", "accumulate-2", "--json"]
    first = json.loads(run("simulate", "small.yaml", *name)[1])
    second = json.loads(run("simulate", "small.yaml", "training.minibatch_size=10", *name)[1])
    assert second["step_s"] < first["step_s"]
    planned(run)
    code, _, err = run("simulate", "--plan", "runs/small/plan.json", "training.minibatch_size=10")
    assert (code, "was made for training.minibatch_size = 20, the experiment says 10" in err) == (2, True)
    assert run("simulate", "--plan", "runs/small/plan.json", "--set", "training.seed=3")[0] == 0


def test_a_candidate_that_does_not_fit_is_shown_all_the_same(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tight.yaml").write_text(EXPERIMENT % "2000 B")
    code, out, _ = run("simulate", "tight.yaml", "--strategy", "whole", "--json")
    rank = json.loads(out)["ranks"][0]
    assert (code, rank["peak_bytes"] > rank["limit_bytes"]) == (0, True)
    assert run("simulate", "tight.yaml")[0] == 3


def test_traces_and_pictures_are_written(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("simulate", "small.yaml", "--trace", "t.json", "--out-file", "p.svg")
    assert (code, out.splitlines()[-2:]) == (0, ["Written to t.json", "Written to p.svg"])
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert "optimizer step" in (tmp_path / "p.svg").read_text()


def test_a_schedule_is_replayed_on_given_costs(run: Any) -> None:
    _, out, _ = run("simulate", "--file", "mine.csv", "--forward-s", "2,3", "--send-s", "0.5", "--json")
    assert json.loads(out)["step_s"] == 2 + 0.5 + 3 + 2 + 0.5 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give an experiment CONFIG, --plan FILE"),
        (["none.yaml"], "there is no such file"),
        (["training.seed=1"], "give an experiment CONFIG"),
        (["small.yaml", "--strategy", "nope"], "--strategy nope: no such candidate; there are"),
        (["small.yaml", "--strategy", "whole", "--plan", "x.json"], "both name what to replay"),
        (["--plan", "none.json"], "none.json: cannot be read"),
        (["--plan", "mine.csv"], "is not a plan file (no JSON)"),
        (["--plan", "broken.json"], "broken.json: model.activation: 'nope' is not available"),
        (["--plan", "empty.json"], "is not a plan file (no experiment)"),
        (["--file", "mine.csv", "small.yaml"], "not on those of CONFIG"),
        (["--file", "mine.csv", "training.seed=1"], "not on those of key.path=value"),
        (["--file", "mine.csv", "--strategy", "whole"], "not on those of --strategy"),
        (["--file", "none.csv"], "there is no such file"),
        (["small.yaml", "--forward-s", "2"], "--forward-s goes with --file"),
        (["small.yaml", "--forward-only"], "--forward-only goes with --file"),
        (["small.yaml", "--out-file", "a.csv"], "end it in .svg, .png"),
        (["small.yaml", "--trace", "no/such/t.json"], "cannot be written"),
        (["small.yaml", "stray"], "override 'stray'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments: list[str], message: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"experiment": {"model": {"activation": "nope"}}}')
    (tmp_path / "empty.json").write_text('{"experiment": 3}')
    code, out, err = run("simulate", *arguments)
    assert (code, out) == (2, "")
    assert message in err
