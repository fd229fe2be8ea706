"""Recomputation in a schedule: R stands right before the backward of each microbatch of a stage.

rank 0  0F0 0F1 0R0 0B0 0R1 0B1        R waits for nothing: it can fill the time in which B waits for its gradient
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from partition.errors import ScheduleError
from partition.schedule.actions import BACKWARD, Action, Kind, Schedule


def with_recomputation(schedule: Schedule, stages: Collection[int]) -> Schedule:
    """The schedule, lowered or not, in which these stages recompute; the order of all else is the same.

    Raises ScheduleError for a schedule that has recomputations, or no backwards.
    """
    if not stages:
        return schedule
    if schedule.recomputed_stages or schedule.is_forward_only:
        what = "recomputes already" if schedule.recomputed_stages else "has no backward to recompute for"
        raise ScheduleError(f"schedule {schedule.name} {what}; take another")
    return replace(schedule, rows=tuple(tuple(_with_recomputation(row, stages)) for row in schedule.rows))


def _with_recomputation(row: Sequence[Action], stages: Collection[int]) -> Iterator[Action]:
    for action in row:
        if action.kind in BACKWARD and action.stage in stages:
            yield action._replace(kind=Kind.R)
        yield action
