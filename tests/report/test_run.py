"""What `train` prints at the end."""

from __future__ import annotations

from dataclasses import replace

from partition.record import DeviceBytes, Final, StepTime, Summary
from partition.report import run_text

SUMMARY = Summary(
    schema_version=1,
    candidate="pipeline-2x8-1f1b",
    num_steps=360,
    wall_s=12.0,
    final=Final(train_loss=0.25, test_loss=0.5, test_accuracy=0.9375),
    per_device=(
        DeviceBytes(device="simulated:0", predicted_peak_bytes=1000, measured_peak_bytes=1000),
        DeviceBytes(device="simulated:1", predicted_peak_bytes=2000, measured_peak_bytes=2300),
    ),
    step_time=StepTime(predicted_s=0.002, measured_s=0.003, clock="wall"),
)


def test_how_well_it_learned() -> None:
    assert run_text(SUMMARY).startswith(
        "Trained pipeline-2x8-1f1b: 360 steps in 12.0 s\n"
        "train loss 0.2500, test loss 0.5000, test accuracy 93.75% on held-out examples\n"
    )


def test_what_was_done_before_is_not_said_to_be_done_now() -> None:
    """Ten steps seemed to have taken the seconds of one, or of none."""
    assert run_text(replace(SUMMARY, num_steps_before=359)).startswith(
        "Trained pipeline-2x8-1f1b: 1 more step in 12.0 s, 360 in all\n"
    )
    done = run_text(replace(SUMMARY, num_steps_before=360))
    assert done.startswith("Nothing was left to train: 360 steps were done before\ntrain loss")
    assert "Step time" not in done


def test_what_was_not_evaluated_is_not_mentioned() -> None:
    silent = replace(SUMMARY, final=Final(train_loss=0.25, test_loss=None, test_accuracy=None))
    assert "test" not in run_text(silent)


def test_predicted_beside_measured_with_the_sign_of_the_difference() -> None:
    rows = [line.split() for line in run_text(SUMMARY).splitlines() if line.startswith("simulated:")]
    assert rows[0][1:4] == ["1,000", "1,000", "+0"]
    assert rows[1][1:4] == ["2,000", "2,300", "+300"]


def test_wall_time_is_measured() -> None:
    assert "predicted 2.00 ms, measured 3.00 ms (median, wall clock)" in run_text(SUMMARY)


def test_simulated_time_is_never_called_measured() -> None:
    simulated = replace(SUMMARY, step_time=StepTime(predicted_s=0.002, measured_s=0.003, clock="simulated"))
    line = next(line for line in run_text(simulated).splitlines() if line.startswith("Step time"))
    assert "not a measurement" in line
    assert "measured" not in line
