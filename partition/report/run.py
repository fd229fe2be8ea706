"""A finished run as a person reads it: how well it learned, predicted beside measured."""

from __future__ import annotations

from partition.record import DeviceBytes, Summary
from partition.report.noise import noise_text
from partition.report.table import counted, table
from partition.units import format_bytes, format_seconds


def run_text(summary: Summary) -> str:
    """The report of a run."""
    parts = [_learned(summary), _memory(summary)]
    if summary.has_trained:
        parts.append(_time(summary))
    if summary.noise:
        parts.append(noise_text(summary.noise))
    return "\n\n".join(parts)


def _learned(summary: Summary) -> str:
    final = summary.final
    pieces = [f"train loss {final.train_loss:.4f}"]
    if final.test_loss is not None:
        pieces.append(f"test loss {final.test_loss:.4f}")
    if final.test_accuracy is not None:
        pieces.append(f"test accuracy {final.test_accuracy:.2%} on held-out examples")
    return f"{_trained(summary)}\n{', '.join(pieces)}"


def _trained(summary: Summary) -> str:
    steps, before, seconds = summary.num_steps, summary.num_steps_before, format_seconds(summary.wall_s)
    if not summary.has_trained:
        return f"Nothing was left to train: {counted(steps, 'step')} were done before"
    if before:
        return f"Trained {summary.candidate}: {counted(steps - before, 'more step')} in {seconds}, {steps} in all"
    return f"Trained {summary.candidate}: {counted(steps, 'step')} in {seconds}"


def _memory(summary: Summary) -> str:
    rows = [_device_row(device) for device in summary.per_device]
    return "Peak memory, bytes\n" + table(("device", "predicted", "measured", "difference", ""), rows)


def _device_row(device: DeviceBytes) -> tuple[str, ...]:
    measured = device.measured_peak_bytes
    if measured is None:
        return (device.device, f"{device.predicted_peak_bytes:,}", "-", "-", "not measured")
    difference = f"{measured - device.predicted_peak_bytes:+,}"
    return (device.device, f"{device.predicted_peak_bytes:,}", f"{measured:,}", difference, format_bytes(measured))


def _time(summary: Summary) -> str:
    time = summary.step_time
    predicted, seen = format_seconds(time.predicted_s), format_seconds(time.measured_s)
    if time.clock == "simulated":
        return f"Step time: predicted {predicted}; simulated clock {seen} (the cost model's time, not a measurement)"
    return f"Step time: predicted {predicted}, measured {seen} (median, wall clock)"
