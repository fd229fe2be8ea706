from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from partition.cli import main
from partition.costs import read_costs

EXPERIMENT = {
    "model": {"in_features": 6, "hidden_features": [8, 8], "out_features": 3, "activation": "gelu"},
    "data": {"source": "synthetic"},
    "training": {"minibatch_size": 8, "steps": 2},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "cluster": {"devices": {"count": 2, "kind": "cpu", "memory": "1 GiB"}},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT), encoding="utf-8")
    return str(path)


def test_what_is_measured_is_what_the_planner_reads(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = tmp_path / "new" / "costs.json"
    assert main(["profile", config, "--costs-file", str(costs)]) == 0
    printed = capsys.readouterr().out
    for shown in ("affine 6x8 bias", "gelu gradient 8", "Links were not measured: --nproc 2", str(costs)):
        assert shown in printed
    assert read_costs(str(costs)).machine.num_ranks == 1
    assert main(["plan", config, f"planner.costs={costs}", "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["certificate"]["cost_source"].startswith("measured on ")
    assert "links not measured" in document["certificate"]["cost_source"]


def test_json_is_the_file(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.json"
    assert main(["profile", config, "--costs-file", str(costs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(costs.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nproc", "0"], "--nproc 0: takes at least 1 process"),
        (["--costs-file", "/proc/none/costs.json"], "--costs-file /proc/none/costs.json: No such file or directory"),
        (["--costs-file", "/"], "--costs-file /: is a folder; give a file"),
        (["cluster.devices.kind=cuda", "cluster.devices.name=L4-24GB", "cluster.devices.memory=null"],
         "cluster.devices are of kind cuda, torch sees 0 here and 1 are to be measured"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_measured(
    config: str,
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("partition.runtime.measuring.measure_layers", lambda *_: pytest.fail("nothing is measured"))
    assert main(["profile", config, *arguments]) in (2, 4)
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_processes_measure_their_messages(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.json"
    assert main(["profile", config, "--nproc", "2", "--costs-file", str(costs)]) == 0
    del capsys
    file = read_costs(str(costs))
    assert file.machine.num_ranks == 2
    assert file.messages is not None
    assert {(link.source, link.destination) for link in file.messages.links} == {(0, 1), (1, 0)}
