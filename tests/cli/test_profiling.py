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
        (["--costs-file", "/proc/none/costs.json"], "'/proc/none/costs.json': cannot be written (No such file"),
        (["--costs-file", "/"], "--costs-file '/': cannot be written (it is a folder); give another place"),
        (["--costs-file", "/proc/x.json"], "--costs-file '/proc/x.json': cannot be written (No such file"),
        (["--costs-file", "x" * 300], "cannot be written (File name too long); give another place"),
        (["--costs-file", "a\0b"], "cannot be written (its name holds a null character); give another place"),
        (["--costs-file", "/", "--nproc", "2"], "--costs-file '/': cannot be written (it is a folder)"),
        (["--nproc", "2", "cluster.devices.kind=cuda", "cluster.devices.name=L4-24GB", "cluster.devices.memory=null"],
         "cluster.devices are of kind cuda, torch sees 0 here and 2 are to be measured"),
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
    monkeypatch.setattr("partition.runtime.launch.launch", lambda *_: pytest.fail("no rank is started"))
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
    assert file.alone is not None
    assert 0.1 < file.alone.factor <= 1


def test_the_place_is_tried_and_left_as_it_was(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noticed only after a minute of measuring that /proc takes no file, though root may write there."""
    monkeypatch.setattr("partition.runtime.measuring.measure", lambda _: None)
    costs = tmp_path / "costs.json"
    costs.write_text('{"before": 1}')
    assert main(["profile", config, "--costs-file", str(costs)]) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".json", ".part"))] == ["costs.json"]
    assert costs.read_text() == '{"before": 1}'


def test_what_is_no_costs_file_is_not_overwritten(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip, and the experiment was gone."""
    monkeypatch.setattr("partition.runtime.measuring.measure", lambda _: pytest.fail("nothing is measured"))
    assert main(["profile", config, "--costs-file", config]) == 2
    assert "cannot be written (it holds something else than costs); give another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("profile", "no costs were written"), ("train", "what was recorded so far is on disk")],
)
def test_what_is_said_when_it_is_interrupted_is_true(
    config: str, verb: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said of every verb that what was recorded is on disk."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"partition.cli.{'profiling' if verb == 'profile' else 'training'}.load_experiment", interrupt)
    assert main([verb, config]) == 130
    assert capsys.readouterr().err == f"partition: interrupted; {expected}\n"


def test_what_no_rank_can_measure_is_told_by_the_first(
    config: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ranks said so."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wide = ["model.hidden_features=[30000, 30000, 30000]", "model.in_features=30000", "model.out_features=30000"]
    limited = tmp_path / "sitecustomize.py"
    limited.write_text("import partition.runtime.stand_in as p\np.free_bytes = lambda: 2**24\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    assert main(["profile", config, *wide, "--nproc", "2", "--costs-file", str(tmp_path / "costs.json")]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("partition: ")]
    assert len(errors) == 1
    assert "layers cannot be measured here: a step of 8 examples, 1 at a time" in errors[0]
