"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.record import DeviceBytes, Final, Metrics, RunDirectory, StepTime, Summary
from partition.record.run import cut_metrics, environment, median_step_s


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
        learning_rate=0.1,
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


def test_begin_writes_what_is_known_before_the_first_step(tmp_path: Path) -> None:
    begin(tmp_path / "deep" / "run").close()
    run = tmp_path / "deep" / "run"
    names = {"config.yaml", "plan.json", "command.txt", "environment.json", "metrics.jsonl"}
    assert {path.name for path in run.iterdir()} == names
    assert (run / "config.yaml").read_text() == "a: 1\n"
    assert json.loads((run / "plan.json").read_text()) == {"x": 1}


def test_document_that_cannot_be_finished_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_json("plan.json", {"x": 1})

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("partition.record.run.os.replace", refuse)
    with pytest.raises(PartitionError, match="No space left on device"):
        directory.write_json("plan.json", {"x": 2})
    assert json.loads((tmp_path / "plan.json").read_text()) == {"x": 1}


def test_earlier_runs_are_numbered_in_order_and_untouched(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        directory = begin(tmp_path / "run")
        directory.append(metrics(step))
        directory.close()
    steps = [json.loads((tmp_path / name / "metrics.jsonl").read_text())["step"] for name in ("run.1", "run.2", "run")]
    assert steps == [1, 2, 3]


def test_plan_alone_is_no_run_to_move_aside(tmp_path: Path) -> None:
    """`plan` writes its file where `train` will put the run."""
    RunDirectory(tmp_path / "run").write_json("plan.json", {"x": 0})
    begin(tmp_path / "run").close()
    assert not (tmp_path / "run.1").exists()


def test_every_line_of_metrics_is_one_step_with_its_exact_loss(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    directory.append(metrics(1))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line)
    keys = {"step", "loss", "loss_hex", "objective", "penalty", "step_s", "samples_per_s", "grad_norm", "learning_rate"}
    assert record.keys() == keys
    assert float.fromhex(record["loss_hex"]) == record["loss"]
    directory.close()


def test_summary_holds_what_others_read(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    directory.end(
        Summary(
            schema_version=1,
            candidate="whole",
            num_steps=3,
            wall_s=1.0,
            final=Final(train_loss=0.5, test_loss=None, test_accuracy=None),
            per_device=(DeviceBytes(device="cpu:0", predicted_peak_bytes=2, measured_peak_bytes=3),),
            step_time=StepTime(predicted_s=0.1, measured_s=0.2, clock="wall"),
        )
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["final"] == {"train_loss": 0.5, "test_loss": None, "test_accuracy": None}
    assert summary["per_device"] == [{"device": "cpu:0", "predicted_peak_bytes": 2, "measured_peak_bytes": 3}]
    assert summary["step_time"] == {"predicted_s": 0.1, "measured_s": 0.2, "clock": "wall"}


def test_a_run_may_be_closed_twice(tmp_path: Path) -> None:
    """Once by its end, once by whoever cleans up after it."""
    directory = begin(tmp_path)
    directory.close()
    directory.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_metrics_are_cut_after_a_step_and_where_a_kill_left_half_a_line() -> None:
    lines = [f'{{"step": {step}, "loss": 1.0}}\n' for step in (1, 2, 3)]
    text = "".join(lines)
    assert cut_metrics(text, 2) == "".join(lines[:2])
    assert cut_metrics(text, 9) == text
    assert cut_metrics(text[:-5], 9) == "".join(lines[:2])
    assert cut_metrics(text[:-1], 9) == text  # whole, but for the end of its line
    for broken in ("[]\n", '{"loss": 1}\n', "null\n", '{"step": "2"}\n', "\x00\n", "[" * 100_000):
        assert cut_metrics(lines[0] + broken + lines[2], 9) == lines[0]
    assert cut_metrics("", 9) == ""


def resume(path: Path, step: int) -> RunDirectory:
    directory = RunDirectory(path)
    directory.begin(config_text="b: 2\n", plan={"x": 2}, command=["partition", "train", "--resume"], resumed_step=step)
    return directory


def test_a_run_goes_on_in_its_place_after_a_step(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run")
    for step in (1, 2, 3):
        directory.append(metrics(step))
    directory.close()
    again = resume(tmp_path / "run", 2)
    again.append(metrics(3))
    again.close()
    assert [one.step for one in again.metrics(9)] == [1, 2, 3]
    assert again.metrics(2) == (metrics(1), metrics(2))
    assert (tmp_path / "run" / "config.yaml").read_text() == "b: 2\n"
    commands = (tmp_path / "run" / "command.txt").read_text().splitlines()
    assert commands == ["partition train 'a b.yaml'", "partition train --resume"]
    assert not (tmp_path / "run.1").exists()


def test_steps_that_another_version_recorded_are_no_steps_of_this_one(tmp_path: Path) -> None:
    begin(tmp_path).close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert RunDirectory(tmp_path).metrics(9) == ()
    assert RunDirectory(tmp_path / "nowhere").metrics(9) == ()


def test_a_run_without_metrics_can_go_on_too(tmp_path: Path) -> None:
    directory = resume(tmp_path / "run", 5)
    directory.append(metrics(6))
    directory.close()
    assert [one.step for one in directory.metrics(9)] == [6]
