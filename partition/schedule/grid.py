"""A schedule as a text grid, one line a rank and one column a tick, for terminals."""

from __future__ import annotations

from dataclasses import replace

from partition.schedule.actions import COMPUTE, Kind, Schedule
from partition.schedule.lowering import lower
from partition.schedule.replay import Timed, replay
from partition.schedule.replay_costs import uniform_costs


def draw(schedule: Schedule, *, most_ticks: int = 400) -> str:
    """Every computation at its tick: F, I, W and R take one, B two, messages none.

    rank 0  F0 F1 .. .. B0 -- .. B1 --
    rank 1  .. F0 B0 -- F1 B1 -- .. ..

    The stage is shown where a rank holds several. Ticks beyond `most_ticks` are left out. Raises ScheduleError for
    rows that stand still.
    """
    rows = tuple(tuple(action for action in row if action.kind in COMPUTE) for row in schedule.rows)
    lowered = lower(replace(schedule, rows=rows))
    ranks = replay(lowered, uniform_costs(lowered)).ranks
    timelines = [[timed for timed in rank.timeline if timed.action.kind in COMPUTE] for rank in ranks]
    names = [[_name(schedule, timed, rank) for timed in timeline] for rank, timeline in enumerate(timelines)]
    width = max((len(name) for row in names for name in row), default=2)
    length = round(max((timed.end_s for timeline in timelines for timed in timeline), default=0.0))
    label = len(str(schedule.num_ranks - 1))
    return "\n".join(
        f"rank {rank:>{label}}  {_draw_row(timeline, names[rank], width, length, most_ticks)}"
        for rank, timeline in enumerate(timelines)
    )


def _draw_row(timeline: list[Timed], names: list[str], width: int, length: int, most_ticks: int) -> str:
    cells = ["." * width] * min(length, most_ticks + 1)
    for timed, name in zip(timeline, names, strict=True):
        if timed.start_s < most_ticks:
            cells[round(timed.start_s)] = f"{name:<{width}}"
            if timed.action.kind is Kind.B:
                cells[round(timed.start_s) + 1] = "-" * width
    return " ".join([*cells[:most_ticks], "..."] if length > most_ticks else cells).rstrip()


def _name(schedule: Schedule, timed: Timed, rank: int) -> str:
    is_single = len(schedule.stages_of(rank)) == 1
    text = str(timed.action)
    return text.removeprefix(str(timed.action.stage)) if is_single else text
