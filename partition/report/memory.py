"""Memory as a person reads it: what dominates, layers, devices, training beside prediction, curves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from partition.plan.curve import MemoryCurve, MemoryPoint
from partition.plan.footprint import DeviceMemory, Footprint, LayerMemory
from partition.plan.largest import LargestFit
from partition.plan.verdict import describe
from partition.report.largest import fit_record
from partition.report.memory_words import action_words, memory_words
from partition.report.table import counted, table
from partition.units import format_bytes

WIDTH = 100
_PARTS = ("parameters", "gradients", "optimizer", "activations", "boundary", "workspace", "data")


def footprint_text(found: Footprint, name: str) -> str:
    """The memory of a candidate in words and tables."""
    candidate = found.candidate
    parts = [
        textwrap.fill(f"{name}: memory of {candidate.name}, {describe(candidate)}", WIDTH),
        textwrap.fill(memory_words(found), WIDTH),
        _layers_text(found),
        _devices_text(found),
        _peaks_text(found),
    ]
    return "\n\n".join(parts)


# Layers


def _layers_text(found: Footprint) -> str:
    of_layers = found.layers
    has_cuts = any(of.sent_bytes for of in of_layers)
    has_state = any(of.optimizer_bytes for of in of_layers)
    header = ["layer", "shape", "stage", "parameters", "gradients", "optimizer", "kept for backward", "sent on"]
    rows = []
    for run in _runs(of_layers):
        one = run[0]
        each = "" if len(run) == 1 else ", each"
        rows.append([
            _span(one.layer, run[-1].layer) + each,
            f"{one.in_features} -> {one.out_features}",
            str(one.stage_index),
            format_bytes(one.parameters_bytes),
            format_bytes(one.gradients_bytes),
            format_bytes(one.optimizer_bytes),
            format_bytes(one.kept_bytes),
            format_bytes(one.sent_bytes) if one.sent_bytes else "",
        ])  # fmt: skip
    is_shown = [True, True, has_cuts, True, True, has_state, True, has_cuts]
    lines = [[cell for cell, is_one in zip(line, is_shown, strict=True) if is_one] for line in (header, *rows)]
    size = f"a microbatch of {found.candidate.microbatch_size:,}"
    title = f"Layers (kept for backward{', sent on' if has_cuts else ''}: of {size})"
    return f"{title}\n{table(lines[0], lines[1:], left=(0, 1))}"


def _runs(layers: Sequence[LayerMemory]) -> list[list[LayerMemory]]:
    """Neighbours that differ in nothing but their index."""
    runs: list[list[LayerMemory]] = []
    for of in layers:
        if runs and {**asdict(runs[-1][0]), "layer": of.layer} == asdict(of):
            runs[-1].append(of)
        else:
            runs.append([of])
    return runs


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


# Devices


def _devices_text(found: Footprint) -> str:
    groups = _alike(found.devices)
    names = [part for part in _PARTS if any(getattr(of.training, f"{part}_bytes") for of in found.devices)]
    rows = []
    for label, of in groups:
        parts = [format_bytes(getattr(of.training, f"{part}_bytes")) for part in names]
        rows.append([label, _layers_of(of), *parts, format_bytes(of.training.peak_bytes)])
    title = "Devices, when each holds most" + (" (estimated)" if found.candidate.sharding else "")
    return f"{title}\n{table(['device', 'layers', *names, 'peak'], rows, left=(0, 1))}"


def _peaks_text(found: Footprint) -> str:
    """Training beside prediction."""
    header = ["device", "limit", "training", "free", "when", "in flight", "evaluating", "prediction alone"]
    rows = []
    for label, of in _alike(found.devices):
        free = of.limit_bytes - of.training.peak_bytes
        prediction = of.prediction
        rows.append([
            label,
            format_bytes(of.limit_bytes),
            format_bytes(of.training.peak_bytes),
            format_bytes(free),
            "-" if found.candidate.sharding else action_words(of),
            str(of.in_flight) if of.in_flight else "-",
            format_bytes(prediction.peak_beside_training_bytes) if prediction else "-",
            format_bytes(prediction.peak_bytes) if prediction else "-",
        ])  # fmt: skip
    legend = (
        "evaluating: beside gradients and optimizer state, as in `train` and `evaluate`; prediction alone: parameters "
        "and what a forward pass takes; in flight: microbatches whose backward is not done"
    )
    return "\n".join([
        "Peaks of training and of prediction", table(header, rows, left=(0, 4)), textwrap.fill(legend, WIDTH)
    ])  # fmt: skip


def _alike(devices: Sequence[DeviceMemory]) -> list[tuple[str, DeviceMemory]]:
    """Devices with the same layers and figures once, under all their names: `cuda:0,2`."""
    groups: dict[object, list[DeviceMemory]] = {}
    for of in devices:
        key = (_layers_of(of), of.training, of.limit_bytes, of.peak_action, of.in_flight, of.prediction)
        groups.setdefault(key, []).append(of)
    return [(_names([of.device for of in group]), group[0]) for group in groups.values()]


def _names(devices: Sequence[str]) -> str:
    """`cuda:0-3`, `cuda:0,2`, or one name."""
    kinds = {name.partition(":")[0] for name in devices}
    if len(devices) == 1 or len(kinds) > 1:
        return ", ".join(devices)
    indices = [int(name.partition(":")[2]) for name in devices]
    is_run = indices == list(range(indices[0], indices[0] + len(indices)))
    return f"{kinds.pop()}:{_span(indices[0], indices[-1]) if is_run else ','.join(map(str, indices))}"


def _layers_of(of: DeviceMemory) -> str:
    return ", ".join(_span(stage.first_layer, stage.last_layer) for stage in of.stages)


# The curve


def curve_text(curve: MemoryCurve) -> str:
    """Both curves as tables: the fullest device at every size."""
    candidate = curve.candidate
    count = counted(candidate.num_microbatches, "microbatch", "microbatches")
    of_each = "" if candidate.num_replicas == 1 else " of each replica"
    parts = [
        f"Memory against the minibatch, in {count}{of_each}, on the layers as {candidate.name} has them\n"
        f"{_points_table(curve.by_minibatch, curve)}"
    ]
    if curve.by_microbatch:
        parts.append(
            f"Memory against the microbatch, minibatch {candidate.minibatch_size:,}, on the same layers\n"
            f"{_points_table(curve.by_microbatch, curve)}"
        )
    return "\n\n".join(parts)


def _points_table(points: Sequence[MemoryPoint], curve: MemoryCurve) -> str:
    header = ["minibatch", "microbatch", "microbatches", "fullest device", "of its limit", ""]
    of_subject = (curve.candidate.minibatch_size, curve.candidate.num_microbatches)
    rows = []
    for point in points:
        pairs = zip(point.peak_bytes, curve.limit_bytes, strict=True)
        peak, limit = max(pairs, key=lambda pair: pair[0] / pair[1])
        is_subject = (point.minibatch_size, point.num_microbatches) == of_subject
        marks = [] if point.fits else ["does not fit"]
        rows.append([
            f"{point.minibatch_size:,}",
            f"{point.microbatch_size:,}",
            f"{point.num_microbatches:,}",
            format_bytes(peak),
            f"{peak / limit:.1%}",
            " ".join([*marks, *(["<- as planned"] if is_subject else [])]),
        ])  # fmt: skip
    return table(header, rows, left=(5,))


# The record


def memory_record(found: Footprint, fits: Sequence[LargestFit], curve: MemoryCurve | None) -> dict[str, object]:
    """All of it in plain values for JSON."""
    candidate = found.candidate
    document: dict[str, object] = {
        "candidate": candidate.name,
        "strategy": candidate.strategy,
        "feasible": candidate.feasible,
        "minibatch_size": candidate.minibatch_size,
        "microbatch_size": candidate.microbatch_size,
        "num_microbatches": candidate.num_microbatches,
        "words": memory_words(found),
        "layers": [asdict(of) for of in found.layers],
        "devices": [_device_record(of) for of in found.devices],
        "remedies": [asdict(remedy) for remedy in found.remedies],
        "largest": [fit_record(fit) for fit in fits],
    }
    if curve is not None:
        document["curve"] = {
            "by_minibatch": [asdict(point) for point in curve.by_minibatch],
            "by_microbatch": [asdict(point) for point in curve.by_microbatch],
        }
    return document


def _device_record(of: DeviceMemory) -> dict[str, object]:
    prediction = of.prediction
    return {
        "device": of.device,
        "rank": of.rank,
        "limit_bytes": of.limit_bytes,
        "peak_action": None if of.peak_action is None else str(of.peak_action),
        "in_flight": of.in_flight,
        "training": asdict(of.training),
        "prediction": None if prediction is None else {
            **asdict(prediction), "peak_beside_training_bytes": prediction.peak_beside_training_bytes
        },
        "stages": [
            {"stage_index": one.stage_index, "first_layer": one.first_layer, "last_layer": one.last_layer,
             "training": asdict(one.memory)}
            for one in of.stages
        ],
    }  # fmt: skip
