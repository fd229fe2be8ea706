"""Other placements of a schedule's stages: ranks under other names, and several stages on one rank."""

from __future__ import annotations

from dataclasses import replace

from partition.schedule.actions import BACKWARD, Action, Kind, Schedule


def relabelling(schedule: Schedule, placement: tuple[int, ...]) -> Schedule | None:
    """The same schedule with its ranks renamed so that stages lie as asked; None where no renaming does it."""
    names = dict(zip(schedule.placement, placement, strict=True))
    if tuple(names[rank] for rank in schedule.placement) != placement or len(set(names.values())) != len(names):
        return None
    owner = {new: old for old, new in names.items()}
    rows = tuple(schedule.rows[owner[rank]] for rank in range(schedule.num_ranks))
    return replace(schedule, placement=placement, rows=rows)


def fold(schedule: Schedule, placement: tuple[int, ...]) -> Schedule:
    """Put the stages of a schedule with one stage a rank onto fewer ranks.

    Every stage keeps its own order. In each tick a rank takes, of the next actions of its stages that can run,
    a backward before a forward before a weight gradient, then the earliest microbatch, then the latest stage:

        stage 0   0F0 0F1 0B0 0B1          rank 0   0F0 1F0 1B0 0F1 0B0 1F1 1B1 0B1
        stage 1   1F0 1B0 1F1 1B1
    """
    position = [0] * schedule.num_stages
    done: set[Action] = set()
    rows: list[list[Action]] = [[] for _ in range(max(placement) + 1)]
    while any(position[stage] < len(row) for stage, row in enumerate(schedule.rows)):
        heads = [row[position[stage]] for stage, row in enumerate(schedule.rows) if position[stage] < len(row)]
        ready = [head for head in heads if _is_ready(head, done, schedule.num_stages)]
        for rank, row in enumerate(rows):
            mine = [head for head in ready if placement[head.stage] == rank]
            if mine:
                row.append(min(mine, key=_urgency))
                position[row[-1].stage] += 1
        done.update(row[-1] for row in rows if row)
    return replace(schedule, placement=placement, rows=tuple(map(tuple, rows)))


def _is_ready(action: Action, done: set[Action], num_stages: int) -> bool:
    stage, kind, microbatch = action
    if kind is Kind.F:
        return stage == 0 or Action(stage - 1, Kind.F, microbatch) in done
    if kind in BACKWARD and stage < num_stages - 1:
        return any(Action(stage + 1, before, microbatch) in done for before in BACKWARD)
    return True


def _urgency(action: Action) -> tuple[int, int, int]:
    order = 0 if action.kind in BACKWARD else 1 if action.kind is Kind.F else 2
    return order, action.microbatch, -action.stage
