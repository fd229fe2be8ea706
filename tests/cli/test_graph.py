"""`partition graph`: told, as JSON, drawn; on stages of a plan, a candidate, a number; refused in one line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from partition.cli import main
from tests.cli.conftest import Run, record


@pytest.fixture
def run(on_small: Run) -> Run:
    return partial(on_small, "graph")


def test_the_forward_is_told(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.startswith("small: forward graph, 4 layers, a microbatch of B = 22\n")
    assert "cross_entropy  L = cross_entropy(o, y)" in out
    assert "∂" not in out.split("\n\n")[1]


@pytest.mark.parametrize("kind", ["forward", "backward", "second-order"])
def test_each_kind_as_json(run: Run, kind: str) -> None:
    document = record(run, f"--{kind}", "model.l2_penalty=0.1")
    assert (document["schema_version"], document["config"]) == (1, "small")
    assert document["kind"] == kind.replace("-", "_")
    names = {node["id"] for node in document["nodes"]}
    assert {"forward": "J", "backward": "∂W3", "second-order": "HW3"}[kind] in names


def test_stages_are_those_of_a_plan_a_candidate_or_a_number(
    run: Run, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", small, "--json"])
    plan = json.loads(capsys.readouterr().out)
    by_name = {one["name"]: one for one in plan["candidates"]}
    name = "pipeline-3x4-1f1b"
    stages = record(run, "--strategy", name)["stages"]
    planned = [(one["first_layer"], one["last_layer"], one["device"]) for one in by_name[name]["stages"]]
    assert [(one["first_layer"], one["last_layer"], one["device"]) for one in stages] == planned
    assert record(run, "--stages", "3")["stages"] == stages
    assert record(run, "--plan", "runs/small/plan.json")["candidate"] == plan["chosen"]
    assert record(run, "--stages", "1")["candidate"] == "whole"


def test_it_is_drawn(run: Run, tmp_path: Path) -> None:
    for name, begin in (("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG"), ("a.dot", b"digraph")):
        code, out, err = run("--backward", "--stages", "2", "--out-file", name)
        assert (code, out, err) == (0, f"Written to {name}\n", "")
        assert (tmp_path / name).read_bytes().startswith(begin)
    assert record(run, "--out-file", "b.svg")["kind"] == "forward"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.dot", "a.svg", "b.svg", "small.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out-file", "g.pdf"], "end it in .svg, .png, .dot"),
        (["--out-file", "none/g.svg"], "cannot be written"),
        (["--out-file", "none/g.dot"], "cannot be written"),
        (["--stages", "0"], "--stages 0: the network has 4 layers and the cluster 4 devices; give 1 to 4"),
        (["--stages", "5"], "--stages 5: the network has 4 layers and the cluster 4 devices; give 1 to 4"),
        (["--stages", "2", "--strategy", "whole"], "--strategy and --stages both say where the stages are"),
        (["--plan", "p.json", "--stages", "2"], "--plan and --stages both say where the stages are"),
        (["--stages", "4", "training.minibatch_size=3"], "--stages 4: no pipeline of so many stages can be laid out"),
        (["--strategy", "nope"], "--strategy nope: no such candidate; there are"),
        (["--strategy", "sharded-2"], "sharded-2 shares out every layer over its devices"),
        (["--plan", "none.json"], "none.json: cannot be read"),
        (
            ["--second-order", "precision.compute=bfloat16"],
            "products with the Hessian need more digits than bfloat16 has, which is precision.compute here",
        ),
        (["training.minibatch_size=0"], "training.minibatch_size"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_two_kinds_at_once_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("--forward", "--backward")
    assert stopped.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_document_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Where this fails: run the command, put its output into docs/graph.md."""
    root = Path(__file__).parent.parent.parent
    assert main(["graph", str(root / "configs/mnist.yaml"), "--stages", "3"]) == 0
    assert f"```text\n{capsys.readouterr().out}```" in (root / "docs/graph.md").read_text(encoding="utf-8")
