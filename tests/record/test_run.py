"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.record import Metrics, RunDirectory
from partition.record.run import environment, median_step_s


def metrics(step: int) -> Metrics:
    return Metrics(
        step=step,
        loss=0.1,
        loss_hex=(0.1).hex(),
        objective=0.2,
        penalty=0.1,
        step_s=1.0,
        samples_per_s=9.0,
        grad_norm=1.0,
    )


def begin(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.begin(config_text="a: 1\n", plan={"x": 1}, command=["partition", "train", "a b.yaml"])
    return directory


def test_metrics_are_on_disk_after_every_step(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run")
    for step in (1, 2):
        directory.append(metrics(step))
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == step
    directory.close()


def test_no_half_written_document_is_left(tmp_path: Path) -> None:
    begin(tmp_path / "run").close()
    assert not list((tmp_path / "run").glob("*.part"))


def test_command_can_be_typed_again(tmp_path: Path) -> None:
    begin(tmp_path / "run").close()
    assert (tmp_path / "run" / "command.txt").read_text() == "partition train 'a b.yaml'\n"


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PartitionError, match=r"cannot be written .*choose another place with --out"):
        begin(tmp_path / "file" / "run")


def test_median_leaves_the_first_five_steps_out() -> None:
    assert median_step_s([100.0] * 5 + [1.0, 2.0, 3.0]) == 2.0
    assert median_step_s([4.0, 2.0]) == 3.0


def test_environment_names_machine_and_versions() -> None:
    found = environment()
    assert found["processor"]
    assert found["packages"]["torch"]
