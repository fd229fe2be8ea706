"""The curves of memory against minibatch and microbatch, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from partition.errors import PartitionError
from partition.plan.curve import MemoryCurve, MemoryPoint
from partition.report.table import counted
from partition.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes"))
_MOST_NAMED = 8
"""Devices with a line in the legend."""


def draw_curve(curve: MemoryCurve, path: Path, picture_format: str) -> None:
    """Write the picture; raises PartitionError without matplotlib, OSError for the file."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PartitionError("pictures are drawn by matplotlib, which is missing; pip install matplotlib") from None
    panels: list[tuple[str, Sequence[MemoryPoint], Callable[[MemoryPoint], int]]] = [
        (f"minibatch, in {counted(curve.candidate.num_microbatches, 'microbatch', 'microbatches')}", curve.by_minibatch,
         lambda point: point.minibatch_size),
    ]  # fmt: skip
    if curve.by_microbatch:
        panels.append((f"microbatch, minibatch {curve.candidate.minibatch_size}", curve.by_microbatch,
                       lambda point: point.microbatch_size))  # fmt: skip
    # Letters stay letters, and equal pictures are equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "partition", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for one, (label, points, size_of) in zip(axes, panels, strict=True):
            _draw(one, points, [size_of(point) for point in points], curve.limit_bytes)
            one.set_xlabel(label)
        axes[0].legend(fontsize=7, frameon=False)
        figure.suptitle(f"Peak memory of {curve.candidate.name}, by device", fontsize=10)
        metadata = {"Date": None} if picture_format == "svg" else {"Software": None}
        figure.savefig(path, format=picture_format, dpi=150, metadata=metadata)


def _draw(axes: Axes, points: Sequence[MemoryPoint], sizes: Sequence[int], limits_bytes: Sequence[int]) -> None:
    from matplotlib import colormaps

    most = max(max(point.peak_bytes) for point in points)
    unit_bytes, unit = next((pair for pair in _UNITS if most >= pair[0]), _UNITS[-1])
    palette = colormaps["cividis"]
    devices = len(limits_bytes)
    for rank in range(devices):
        color = palette(0.88 * rank / max(devices - 1, 1))
        held = [point.peak_bytes[rank] / unit_bytes for point in points]
        label = f"rank {rank}" if rank < _MOST_NAMED else None
        axes.plot(sizes, held, color=color, linewidth=1.2, marker=".", markersize=4, label=label)
    for limit in sorted(set(limits_bytes)):
        # A limit far above would flatten the curves.
        if limit <= 1.5 * most:
            axes.axhline(limit / unit_bytes, color="#b03030", linewidth=0.9, linestyle="--",
                         label=f"limit {format_bytes(limit)}")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#dddddd", linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
