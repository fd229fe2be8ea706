"""A simulation as a person reads it: a table of ranks, memory over time in characters, the record for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from partition.report.table import counted, table
from partition.schedule.simulation import Sample, ScheduleFigures, Simulation, figures, memory_over_time
from partition.units import format_bytes, format_seconds

_LEVELS = " .:-=+*#%@"
_COLUMNS = 60


def simulation_text(simulation: Simulation) -> str:
    """Step time, idle time, and what every rank does and holds."""
    found = figures(simulation)
    return f"{_headline(simulation, found)}\n\n{_ranks_table(simulation, found)}"


def memory_text(simulation: Simulation) -> str:
    """Memory over time, a line a rank: the most of each sixtieth of the step, between its least and its peak."""
    ranks = range(simulation.schedule.num_ranks)
    label = max(len(simulation.rank_name(rank)) for rank in ranks)
    lines = [f"{simulation.rank_name(rank):<{label}}  {_memory_line(simulation, rank)}" for rank in ranks]
    return "\n".join([f"Memory over the step, each rank from its least ' ' to its peak '{_LEVELS[-1]}'", *lines])


def _memory_line(simulation: Simulation, rank: int) -> str:
    samples = memory_over_time(simulation, rank)
    least = min(sample.held_bytes for sample in samples)
    peak = max(sample.held_bytes for sample in samples)
    levels = "".join(
        _LEVELS[-(-(held - least) * (len(_LEVELS) - 1) // max(peak - least, 1))]
        for held in _highest(samples, simulation.replay.makespan_s)
    )
    return f"|{levels}|  {format_memory(simulation, least)} to {format_memory(simulation, peak)}"


def simulation_record(simulation: Simulation) -> dict[str, object]:
    """The figures and memory over time, in plain values for JSON."""
    found = asdict(figures(simulation))
    for rank, one in enumerate(found["ranks"]):
        one["device"] = simulation.devices[rank] if simulation.devices else None
        one["limit_bytes"] = simulation.limits_bytes[rank] if simulation.limits_bytes else None
        one["memory_over_time"] = [list(sample) for sample in memory_over_time(simulation, rank)]
    unit = "bytes" if simulation.is_in_bytes else "microbatches kept by a stage"
    return {"step_s": found["makespan_s"], **found, "memory_unit": unit}


def format_memory(simulation: Simulation, amount: int) -> str:
    """Bytes for a reader, or the number of microbatches kept."""
    return format_bytes(amount) if simulation.is_in_bytes else f"{amount} kept"


def excess_of(simulation: Simulation) -> str:
    """Which rank holds more than it may, in words; nothing where all fit."""
    over = [
        (peak - limit, rank, peak, limit)
        for rank, (peak, limit) in enumerate(zip(simulation.replay.peak_bytes, simulation.limits_bytes, strict=False))
        if peak > limit
    ]
    if not over:
        return ""
    _, rank, peak, limit = max(over)
    return (
        f"{simulation.rank_name(rank)} needs {format_memory(simulation, peak)}, "
        f"it may hold {format_memory(simulation, limit)}"
    )


def _headline(simulation: Simulation, found: ScheduleFigures) -> str:
    schedule = simulation.schedule
    stages = f", {schedule.num_stages} stages" if schedule.num_stages != schedule.num_ranks else ""
    return (
        f"{schedule.name}: {counted(schedule.num_ranks, 'rank')}{stages}, "
        f"{counted(schedule.num_microbatches, 'microbatch', 'microbatches')}\n"
        f"step {format_seconds(found.makespan_s)}, idle {found.bubble_fraction:.1%} of it; "
        f"{counted(found.num_transfers, 'transfer')}, links busy for {format_seconds(found.transfer_s)} in all"
    )


def _ranks_table(simulation: Simulation, found: ScheduleFigures) -> str:
    has_limits = bool(simulation.limits_bytes)
    header = ["", "stages", "busy", "idle", "bubble", "in flight", "peak memory", "at"]
    rows = []
    for one in found.ranks:
        rows.append([
            simulation.rank_name(one.rank),
            ",".join(map(str, one.stages)),
            format_seconds(one.busy_s),
            format_seconds(one.idle_s),
            format_seconds(one.bubble_s),
            str(one.most_in_flight),
            format_memory(simulation, one.peak_bytes),
            one.peak_action or "start",
            *([format_memory(simulation, simulation.limits_bytes[one.rank])] if has_limits else []),
        ])  # fmt: skip
    legend = (
        "idle: of the whole step; bubble: between a rank's first computation and its last; "
        "in flight: microbatches from F to W"
    )
    return f"{table([*header, *(['limit'] if has_limits else [])], rows, left=(0, 1, 7))}\n{legend}"


def _highest(samples: Sequence[Sample], makespan_s: float) -> list[int]:
    """The most that is held in each column of time."""
    highest = [min(sample.held_bytes for sample in samples)] * _COLUMNS
    ends = [sample.time_s for sample in samples[1:]] + [makespan_s]
    for (start_s, held), end_s in zip(samples, ends, strict=True):
        first = _column(start_s, makespan_s)
        # What ends where a column begins, but for rounding, does not reach into it.
        last = max(first, _column(end_s * (1 - 1e-9), makespan_s))
        for column in range(first, last + 1):
            highest[column] = max(highest[column], held)
    return highest


def _column(time_s: float, makespan_s: float) -> int:
    return min(int(time_s / makespan_s * _COLUMNS), _COLUMNS - 1) if makespan_s > 0 else 0
