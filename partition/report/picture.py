r"""A simulation drawn to scale by matplotlib: a lane a rank, memory under it.

    rank 0   |F0|F1|F2|      |B0   |F3|B1   |...        a cell is as wide as its action is long
    rank 1      |F0|F1|B0   |F2|B1   |...
    memory   _/~~\__/~~~\__                             what each rank holds

Kinds differ in lightness as well as in hue, so that they stay apart in print and for readers who see fewer colours;
later stages of one rank are paler.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from partition.errors import PartitionError
from partition.report.table import counted
from partition.schedule import Kind, Schedule
from partition.schedule.actions import COMPUTE
from partition.schedule.replay import Timed
from partition.schedule.simulation import Simulation, figures, memory_over_time
from partition.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
MOST_DRAWN = 100_000
"""Actions of the largest schedule that is drawn: more make a file that no viewer opens."""

_NAMES = {Kind.F: "F forward", Kind.B: "B backward", Kind.I: "I input gradient", Kind.W: "W weight gradient"}
_NAMES |= {Kind.R: "R recomputation", Kind.STEP: "optimizer step"}
_COLORS = {Kind.F: "#083a78", Kind.I: "#f0a30a", Kind.W: "#cdebd8", Kind.B: "#dd7a4f", Kind.R: "#7b3fa0"}
_COLORS[Kind.STEP] = "#000000"
_PALEST = 0.3
"""how far towards white the last stage of a rank is"""
_CELL_INCHES = 0.29
_WIDTH_INCHES = (9.0, 44.0)
_MARGINS_INCHES = (0.85, 0.3, 0.62, 0.5)
"""left, right, top, bottom"""


class _Cell(NamedTuple):
    """One action as a rectangle."""

    rank: int
    timed: Timed
    labels: tuple[str, str]
    """in full, and short for where that does not fit"""
    color: tuple[float, float, float]

    @property
    def is_dark(self) -> bool:
        """Whether white letters are read better on it than black ones."""
        red, green, blue = self.color
        return 0.299 * red + 0.587 * green + 0.114 * blue < 0.55


def draw_picture(simulation: Simulation, path: Path, picture_format: str) -> None:
    """Write the picture; raises PartitionError for what is too large to draw, OSError for the file."""
    check_size(simulation.schedule)
    cells = list(_cells(simulation))
    try:
        import matplotlib
    except ImportError:
        raise PartitionError("pictures are drawn by matplotlib, which is missing; pip install matplotlib") from None
    # Letters stay letters, and equal pictures are equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "partition", "font.family": "DejaVu Sans"}):
        figure = _figure(simulation, cells)
        metadata = {"Date": None} if picture_format == "svg" else {"Software": None}
        figure.savefig(path, format=picture_format, dpi=_dots_per_inch(figure), metadata=metadata)


def check_size(schedule: Schedule) -> None:
    """Raise PartitionError for a schedule of too many computations to be drawn."""
    computations = sum(action.kind in COMPUTE for row in schedule.rows for action in row)
    if computations > MOST_DRAWN:
        raise PartitionError(
            f"a picture of {computations} actions is too large to view, at most {MOST_DRAWN} are drawn; "
            "take fewer microbatches, or a trace"
        )


def _dots_per_inch(figure: Figure) -> float:
    """Sharp where small, and no more than viewers show at once where large."""
    width, height = figure.get_size_inches()
    return float(min(150.0, 12_000 / max(width, height)))


def _cells(simulation: Simulation) -> Iterator[_Cell]:
    schedule = simulation.schedule
    for rank, result in enumerate(simulation.replay.ranks):
        stages = schedule.stages_of(rank)
        for timed in result.timeline:
            action = timed.action
            if action.kind in _NAMES and timed.end_s > timed.start_s:
                depth = stages.index(action.stage) / (len(stages) - 1) if len(stages) > 1 else 0.0
                text = str(action)
                short = str(action.microbatch) if action.kind is not Kind.STEP else ""
                label = text if len(stages) > 1 else text.removeprefix(str(action.stage))
                yield _Cell(rank, timed, (label, short), _color(action.kind, depth))


def _color(kind: Kind, depth: float) -> tuple[float, float, float]:
    """The colour of a kind, paler for later stages of a rank (`depth` from 0 to 1)."""
    text = _COLORS[kind]
    red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))
    pale = _PALEST * depth
    return red + (1 - red) * pale, green + (1 - green) * pale, blue + (1 - blue) * pale


def _figure(simulation: Simulation, cells: list[_Cell]) -> Figure:
    from matplotlib.figure import Figure

    left, right, top, bottom = _MARGINS_INCHES
    ranks = simulation.schedule.num_ranks
    lanes_inches = ranks * _lane_inches(ranks)
    memory_inches, gap_inches = 1.5, 0.16
    width = _width_inches(simulation, cells) + left + right
    height = top + lanes_inches + gap_inches + memory_inches + bottom
    figure = Figure(figsize=(width, height))
    across = (left / width, (width - left - right) / width)
    lanes = figure.add_axes((across[0], 1 - (top + lanes_inches) / height, across[1], lanes_inches / height))
    memory = figure.add_axes((across[0], bottom / height, across[1], memory_inches / height), sharex=lanes)
    seconds_per_unit, unit = _time_unit(simulation.replay.makespan_s)
    lanes.set_xlim(0.0, max(simulation.replay.makespan_s, 1e-12) / seconds_per_unit)
    _draw_lanes(lanes, simulation, cells, seconds_per_unit)
    _draw_labels(lanes, cells, seconds_per_unit)
    _draw_memory(memory, simulation, seconds_per_unit)
    memory.set_xlabel(f"time, {unit}", fontsize=8, loc="left")
    _draw_heading(figure, simulation, cells)
    return figure


def _lane_inches(ranks: int) -> float:
    return 0.36 if ranks <= 8 else 0.26 if ranks <= 32 else 0.12


def _width_inches(simulation: Simulation, cells: list[_Cell]) -> float:
    """Wide enough for a letter and a number in the median action."""
    durations = sorted(cell.timed.end_s - cell.timed.start_s for cell in cells) or [1.0]
    typical_s = durations[len(durations) // 4]
    least, most = _WIDTH_INCHES
    return min(max(simulation.replay.makespan_s / typical_s * _CELL_INCHES, least), most)


def _time_unit(makespan_s: float) -> tuple[float, str]:
    for unit_s, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if makespan_s >= unit_s:
            return unit_s, name
    return (1.0, "s") if makespan_s <= 0 else (1e-9, "ns")


def _draw_lanes(axes: Axes, simulation: Simulation, cells: list[_Cell], unit_s: float) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    ranks = simulation.schedule.num_ranks
    corners = [_corners(cell, unit_s) for cell in cells]
    thin = 0.4 if len(cells) < 1500 else 0.15
    axes.add_collection(
        PolyCollection(corners, facecolors=[c.color for c in cells], edgecolors="white", linewidths=thin)
    )
    messages = [
        ((one.start_s / unit_s, one.source), (one.end_s / unit_s, one.destination))
        for one in simulation.replay.transfers
        if one.end_s > one.start_s
    ]
    if messages and ranks <= 16:
        axes.add_collection(LineCollection(messages, colors="#555555", linewidths=0.5, alpha=0.6, zorder=0.5))
    axes.set_ylim(ranks - 0.5, -0.5)
    every = 1 if ranks <= 32 else ranks // 16
    axes.set_yticks(range(0, ranks, every), [f"rank {rank}" for rank in range(0, ranks, every)], fontsize=8)
    axes.set_facecolor("#f1f1f1")
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _corners(cell: _Cell, unit_s: float) -> list[tuple[float, float]]:
    start, end = cell.timed.start_s / unit_s, cell.timed.end_s / unit_s
    upper, lower = cell.rank - 0.44, cell.rank + 0.44
    return [(start, upper), (end, upper), (end, lower), (start, lower)]


def _draw_labels(axes: Axes, cells: list[_Cell], unit_s: float) -> None:
    """Write in every cell what fits: kind and microbatch, or the microbatch, or nothing."""
    figure = axes.get_figure()
    assert figure is not None, "axes are made by a figure"
    width_inches, height_inches = figure.get_size_inches()  # type: ignore[union-attr]
    box = axes.get_position()
    left, right = axes.get_xlim()
    points_per_unit = box.width * width_inches * 72 / (right - left)
    bottom, top = axes.get_ylim()
    size = min(8.0, 0.62 * box.height * height_inches * 72 / abs(bottom - top))
    # Cells of one width have letters of one size, whatever the number of digits.
    lengths = [
        max((len(label) for label in labels), default=1) for labels in zip(*(c.labels for c in cells), strict=True)
    ]
    for cell in cells:
        start, end = cell.timed.start_s / unit_s, cell.timed.end_s / unit_s
        fitted = _fitting(cell, lengths, (end - start) * points_per_unit - 1.5, size)
        if fitted is not None:
            text, points = fitted
            color = "white" if cell.is_dark else "black"
            axes.text(
                (start + end) / 2, cell.rank, text, fontsize=points, color=color, ha="center", va="center_baseline"
            )


def _fitting(cell: _Cell, lengths: list[int], room_points: float, size: float) -> tuple[str, float] | None:
    """The longest label that is legible in a cell, and its size; None where none is."""
    for text, length, least in zip(cell.labels, lengths, (6.0, 4.5), strict=True):
        # A word of capitals is wider than a letter and a number.
        widest = 0.64 * max(length, 1.1 * len(text))
        points = min(size, room_points / widest) if text else 0.0
        if points >= least:
            return text, points
    return None


def _draw_memory(axes: Axes, simulation: Simulation, unit_s: float) -> None:
    """What each rank holds besides what it holds throughout, which would flatten all lines."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    ranks = simulation.schedule.num_ranks
    divisor, unit = _memory_unit(simulation)
    palette = colormaps["cividis"]
    most = 0.0
    for rank in range(ranks):
        samples, static = memory_over_time(simulation, rank), simulation.costs.static_of(rank)
        times = [sample.time_s / unit_s for sample in samples] + [simulation.replay.makespan_s / unit_s]
        held = [(sample.held_bytes - static) / divisor for sample in (*samples, samples[-1])]
        label = f"rank {rank}" + (f" + {format_bytes(static)}" if static else "")
        color = palette(0.88 * rank / max(ranks - 1, 1))
        axes.plot(times, held, drawstyle="steps-post", color=color, linewidth=1.1, label=label)
        most = max(most, *held)
        if simulation.limits_bytes:
            limit = (simulation.limits_bytes[rank] - static) / divisor
            axes.axhline(limit, color=color, linewidth=0.9, linestyle="--")
    axes.set_ylim(0, 1.08 * most or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=not simulation.is_in_bytes))
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _draw_memory_legend(axes, ranks)


def _draw_memory_legend(axes: Axes, ranks: int) -> None:
    """Every rank, or where they are many the first, some between, and the last."""
    handles, _ = axes.get_legend_handles_labels()
    if ranks > 6:
        handles = [handles[round(place * (ranks - 1) / 4)] for place in range(5)]
    axes.legend(
        handles=handles, fontsize=7, loc="upper right", bbox_to_anchor=(1.0, -0.13), ncols=len(handles),
        handlelength=1.2, borderpad=0.3, frameon=False, columnspacing=1.0,
    )  # fmt: skip


def _memory_unit(simulation: Simulation) -> tuple[float, str]:
    if not simulation.is_in_bytes:
        return 1.0, "microbatches\nkept"
    above = "memory above\nits start" if any(simulation.costs.static_bytes) else "memory"
    ranks = range(simulation.schedule.num_ranks)
    most = max(simulation.replay.peak_bytes[rank] - simulation.costs.static_of(rank) for rank in ranks)
    for unit_bytes, name in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if most >= unit_bytes:
            return unit_bytes, f"{above}, {name}"
    return 1.0, f"{above}, bytes"


def _draw_heading(figure: Figure, simulation: Simulation, cells: list[_Cell]) -> None:
    from matplotlib.patches import Patch

    schedule, found = simulation.schedule, figures(simulation)
    _, height = figure.get_size_inches()
    peak = max(simulation.replay.peak_bytes)
    most = format_bytes(peak) if simulation.is_in_bytes else counted(peak, "microbatch", "microbatches")
    title = (
        f"{schedule.name}, {counted(schedule.num_ranks, 'rank')}, "
        f"{counted(schedule.num_microbatches, 'microbatch', 'microbatches')}: "
        f"step {format_seconds(found.makespan_s)}, idle {found.bubble_fraction:.1%}, most memory {most}"
    )
    left = _MARGINS_INCHES[0] / figure.get_size_inches()[0]
    figure.text(left, 1 - 0.13 / height, title, fontsize=10, va="top")
    present = {cell.timed.action.kind for cell in cells}
    handles = [Patch(facecolor=_color(kind, 0.0), label=name) for kind, name in _NAMES.items() if kind in present]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, 1 - 0.36 / height), ncols=len(handles), frameon=False,
        fontsize=8, handlelength=1.2, handleheight=1.0, borderpad=0, borderaxespad=0, columnspacing=1.4,
    )  # fmt: skip
