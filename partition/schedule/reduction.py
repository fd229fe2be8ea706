"""Sums over replicas in a schedule: a stage's gradients are added as soon as the last of them is complete.

rank 1  ... 1B6 1SEND_B6 1B7 1SEND_B7 1REDUCE_GRAD 1STEP        after what its last backward sends
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from partition.schedule.actions import SENDS, Action, Kind, Schedule


def with_reductions(lowered: Schedule) -> Schedule:
    """The schedule with a sum over replicas for every stage, right after its last gradient and what that one sends."""
    return replace(lowered, rows=tuple(map(_with_reductions, lowered.rows)))


def _with_reductions(row: Sequence[Action]) -> tuple[Action, ...]:
    last = {action.stage: place for place, action in enumerate(row) if action.kind in (Kind.B, Kind.W)}
    found: list[Action] = []
    due: list[int] = []
    for place, action in enumerate(row):
        if due and action.kind not in SENDS:
            found += [Action(stage, Kind.REDUCE_GRAD) for stage in due]
            due.clear()
        found.append(action)
        if last.get(action.stage) == place and action.kind is not Kind.STEP:
            due.append(action.stage)
    return (*found, *(Action(stage, Kind.REDUCE_GRAD) for stage in due))
