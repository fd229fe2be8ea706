"""`partition plan` of a table of layer costs, and what the other verbs say to it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from partition.cli import main

EXPERIMENT = """\
model: {costs: tables/chain.csv, microbatch_size: 4}
training: {minibatch_size: 16}
cluster:
  devices: {count: 2, kind: simulated, memory: %s}
  links: {bandwidth: 1 MB/s, latency: 1 ms}
"""
TABLE = "name,forward_s,backward_s,activation_bytes,parameter_bytes,saved_bytes\n" + "".join(
    f"layer {index},0.5,1,100,1000,200\n" for index in range(4)
)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two devices that hold half of the layers each, and not all."""
    monkeypatch.chdir(tmp_path)
    Path("tables").mkdir()
    Path("tables/chain.csv").write_text(TABLE)
    Path("chain.yaml").write_text(EXPERIMENT % "6000 B")
    return "chain.yaml"


def test_a_table_is_planned_and_the_plan_replayed(chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", chain]) == 0
    out = capsys.readouterr().out
    assert out.startswith("chain: the layers of chain.csv, microbatches of 4, minibatch 16, 2 devices")
    assert "Verdict: Split the graph: pipeline-2x4-" in out.replace("\n", " ")
    command = shlex.split(out.strip().splitlines()[-1])
    assert command[:3] == ["partition", "simulate", chain]
    plan = json.loads(Path("runs/chain/plan.json").read_text())["candidate"]
    for arguments in (command[1:], ["simulate", "--plan", "runs/chain/plan.json"]):
        assert main([*arguments, "--json"]) == 0
        replay = json.loads(capsys.readouterr().out)
        assert replay["step_s"] == plan["predicted"]["step_s"]


def test_nothing_fits_with_numbers(chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(chain).write_text(EXPERIMENT % "3000 B")
    assert main(["plan", chain, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"] is None
    assert "Nothing fits. The closest is" in found["verdict"]


def test_a_table_that_changed_since_is_planned_again(chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", chain]) == 0
    Path("tables/chain.csv").write_text(TABLE.replace("0.5", "0.6"))
    capsys.readouterr()
    assert main(["simulate", "--plan", "runs/chain/plan.json"]) == 2
    assert "is not what this experiment gives; plan again" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_there_is_nothing_to_run(chain: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, chain]) == 2
    error = capsys.readouterr().err
    assert error == (
        "partition: chain.yaml: model.costs is a table of costs, there is no network to run; `partition plan` and "
        "`simulate` take it\n"
    )
    assert not Path("runs").exists()


def test_validate_and_config_take_it(chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", chain]) == 0
    capsys.readouterr()
    assert main(["config", chain]) == 0
    Path("again.yaml").write_text(capsys.readouterr().out)
    assert main(["config", "again.yaml", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["experiment"]["model"]
    assert model == {"costs": str(Path("tables/chain.csv").absolute()), "microbatch_size": 4}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.minibatch_size=18", "18 examples are no whole number of model.microbatch_size, 4; take a multiple"),
        ("model.costs=absent.csv", "absent.csv: there is no such file; check the path"),
        ("planner.schedules=[zbv]", "planner.schedules: zbv splits the backward, the table chain.csv does not"),
        ("planner.strategies=[sharded]", "sharded needs the layers' shapes, model.costs has none; remove it"),
        ("planner.costs=other.json", "the costs of this experiment are model.costs; remove one of the two"),
        ("planner.minibatch_sizes=[6]", "6 examples are no whole number of model.microbatch_size, 4"),
    ],
)
def test_refusals(chain: str, override: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", chain, override]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


SMALL = """\
model: {in_features: 12, hidden_features: [10, 10], out_features: 5}
data: {source: synthetic}
training: {minibatch_size: 22}
optimizer: {lr: 0.1}
cluster: {devices: {count: 2, kind: simulated, memory: %s}}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network on two devices."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL % "9 KiB")
    return "small.yaml"


def test_break_even_is_said_when_asked_for_and_always_in_json(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", small]) == 0
    assert "Break-even" not in capsys.readouterr().out
    assert main(["plan", small, "--break-even"]) == 0
    assert "\nBreak-even: the verdict, " in capsys.readouterr().out
    assert main(["plan", small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["break_even"]) == {"link_bandwidth", "memory", "minibatch_size", "noise"}


def test_pytorch_lines_and_nothing_else(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, name in ((["--pytorch"], None), (["--pytorch", "--strategy", "accumulate-2"], "accumulate-2")):
        assert main(["plan", small, *arguments]) == 0
        out = capsys.readouterr().out
        compile(out, "lines", "exec")
        assert name is None or out.startswith(f"# {name}: 22 examples a step")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--pytorch", "--strategy", "absent"], 2, "--strategy absent: no such candidate; there are "),
        (["--strategy", "whole"], 2, "--strategy names the candidate that --pytorch prints; give both, or neither"),
        (["--check", "plan.json", "--all"], 2, "--check verifies a plan file and plans nothing; leave out --pytorch, "),
        (["--check", "plan.json", "--out", "x"], 2, "--out says where the plan is written, and --check writes none; "),
        (["--pytorch", "--out", "x"], 2, "--out says where the plan is written, and --pytorch writes none; give one"),
        (["--pytorch", "--break-even"], 2, "--pytorch prints lines of Python and nothing else; leave out --break-even"),
        (["--pytorch", "--json"], 2, "--pytorch prints lines of Python, --json a document; give one of the two"),
        (["--pytorch", "--set", "cluster.devices.memory=600 B"], 3, "Nothing fits."),
        (["planner.learning_rate_rule=noise"], 2, "planner.learning_rate_rule: noise takes a measured noise, and "),
        (["planner.learning_rate_rule=cubic"], 2, "'cubic' is not available; choose linear, sqrt, noise or constant"),
    ],
)
def test_refusals_in_one_line(
    small: str, arguments: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", small, *arguments]) == code
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_table_has_no_lines_of_pytorch(chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", chain, "--pytorch"]) == 2
    assert "a table of costs does not say what its layers are" in capsys.readouterr().err


def test_a_plan_file_is_verified_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was looked at is printed; a plan that was changed is refused with exit code 2."""
    config = "configs/digits.yaml"
    assert main(["plan", config, "--out", str(tmp_path), "--json"]) == 0
    capsys.readouterr()
    plan = tmp_path / "plan.json"
    assert main(["plan", config, "--check", str(plan)]) == 0
    shown = capsys.readouterr().out
    assert "memory  holds" in shown
    assert "bound   holds" in shown
    plan.write_text(plan.read_text().replace('"step_s": 0', '"step_s": 1', 1))
    assert main(["plan", config, "--check", str(plan)]) == 2
    assert "is not what this experiment gives; plan again" in capsys.readouterr().err
