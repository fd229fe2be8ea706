"""Local improvement: other warm-ups and delays, and trades of neighbouring actions, as long as they pay.

With one stage a rank, two numbers a rank describe a pattern:

    warmup    forwards before the first backward
    delay     microbatches by which W trails I; -1: backward whole

    warmup 2, delay 1     F0 F1 F2 I0 F3 I1 W0 F4 I2 W1 ...
    1F1B is (p-1-r, -1), ZB-H1 (p-1-r, r), ZB-H2 (2(p-1-r), 2r) on rank r

A trade exchanges two neighbouring actions of one rank; any schedule can be improved by trades.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from partition.schedule.actions import Kind
from partition.schedule.auto.problem import Problem, Rows, price
from partition.schedule.fast.coded import KIND_CODE, Indices, Integers

WHOLE = -1
"""the delay of a backward that is not split"""


class Habit(NamedTuple):
    """How one rank works."""

    warmup: int
    delay: int


Pattern = tuple[Habit, ...]
"""the habit of each rank"""


def rows_of(pattern: Pattern, problem: Problem) -> Rows:
    """Numbers of each rank; the stage of a rank is looked up in the placement."""
    rows = {rank: _row(pattern[rank], stage, problem) for stage, rank in enumerate(problem.placement)}
    return tuple(rows[rank] for rank in range(problem.num_ranks))


def _row(habit: Habit, stage: int, problem: Problem) -> Integers:
    """A row, by sorting: forwards at whole numbers, the backward of a forward just after it."""
    count = problem.num_microbatches
    microbatch = np.arange(count)
    backward_at = np.minimum(microbatch + habit.warmup, count - 1) + (microbatch + 1) / (count + 2)
    parts = [(Kind.F, microbatch.astype(np.float64))]
    if habit.delay == WHOLE:
        parts.append((Kind.B, backward_at))
    else:
        trailing = np.minimum(microbatch + habit.delay, count - 1)
        parts += [(Kind.I, backward_at), (Kind.W, backward_at[trailing] + 0.5 / (count + 2))]
    numbers = [(KIND_CODE[kind] * problem.num_stages + stage) * count + microbatch for kind, _ in parts]
    order = np.argsort(np.concatenate([at for _, at in parts]), kind="stable")
    row: Integers = np.concatenate(numbers)[order].astype(np.int32)
    return row


def starting_patterns(problem: Problem) -> list[Pattern]:
    """1F1B and the two zero-bubble patterns, as far as the costs allow."""
    ranks = problem.num_ranks
    position = {rank: stage for stage, rank in enumerate(problem.placement)}
    after = [ranks - 1 - position[rank] for rank in range(ranks)]
    patterns: list[Pattern] = []
    if problem.can_merge:
        patterns.append(tuple(Habit(rest, WHOLE) for rest in after))
    if problem.can_split:
        patterns.append(tuple(Habit(rest, 0) for rest in after))
        patterns.append(tuple(Habit(rest, ranks - 1 - rest) for rest in after))
        patterns.append(tuple(Habit(2 * rest, 2 * (ranks - 1 - rest)) for rest in after))
    return patterns


def improve_pattern(
    start: Pattern, problem: Problem, iterations: int, most_replayed: int
) -> tuple[Pattern, float, int]:
    """Change the habits of a rank, or of all up to or from one, as long as it pays and replays are left.

    Returns the pattern, its makespan and the number of schedules replayed.
    """
    best, best_s, replayed = start, float(price([rows_of(start, problem)], problem).makespan_s[0]), 1
    seen = {start}
    for _ in range(iterations):
        candidates = [pattern for pattern in dict.fromkeys(_neighbours(best, problem)) if pattern not in seen]
        if not candidates or replayed + len(candidates) > most_replayed:
            break
        seen.update(candidates)
        replayed += len(candidates)
        makespans = price([rows_of(pattern, problem) for pattern in candidates], problem).makespan_s
        chosen = int(np.argmin(makespans))
        if not makespans[chosen] < best_s:
            break
        best, best_s = candidates[chosen], float(makespans[chosen])
    return best, best_s, replayed


_ONE_RANK = ((1, 0), (-1, 0), (2, 0), (-2, 0), (0, 1), (0, -1), (0, 2), (0, -2), (1, 1), (-1, 1), (1, -1))
_MANY_RANKS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def _neighbours(pattern: Pattern, problem: Problem) -> list[Pattern]:
    found = []
    for rank in range(len(pattern)):
        one, until, since = {rank}, set(range(rank + 1)), set(range(rank, len(pattern)))
        found += [_changed(pattern, one, change, problem) for change in _ONE_RANK]
        found += [_changed(pattern, ranks, change, problem) for change in _MANY_RANKS for ranks in (until, since)]
    return found


def _changed(pattern: Pattern, ranks: set[int], change: tuple[int, int], problem: Problem) -> Pattern:
    """The pattern with warmup and delay of these ranks changed, within what is possible."""
    count = problem.num_microbatches
    least = WHOLE if problem.can_merge else 0
    most = count if problem.can_split else WHOLE
    return tuple(
        Habit(min(max(habit.warmup + change[0], 0), count - 1), min(max(habit.delay + change[1], least), most))
        if rank in ranks
        else habit
        for rank, habit in enumerate(pattern)
    )


def improve_rows(
    start: Rows, start_s: float, problem: Problem, iterations: int, most_replayed: int
) -> tuple[Rows, float, int]:
    """Try every trade; take the best, then the best of every rank on top of one another, whichever is quickest.

    Returns the rows, their makespan and the number of schedules replayed.
    """
    best, best_s, replayed = start, start_s, 0
    for _ in range(iterations):
        trades = [(rank, place) for rank, row in enumerate(best) for place in _tradeable(row, problem)]
        if not trades or replayed + len(trades) > most_replayed:
            break
        candidates = [_traded(best, [trade]) for trade in trades]
        makespans = price(candidates, problem).makespan_s
        combined = _combined(best, best_s, trades, makespans)
        replayed += len(candidates) + len(combined)
        if not combined:
            break
        combined_s = price(combined, problem).makespan_s
        chosen = int(np.argmin(combined_s))
        best, best_s = combined[chosen], float(combined_s[chosen])
    return best, best_s, replayed


def _tradeable(row: Integers, problem: Problem) -> list[int]:
    """Places whose action may come after the next one: of another stage, or of another kind and microbatch."""
    count, stages = problem.num_microbatches, problem.num_stages
    kind_stage: Indices = (row // count).astype(np.intp)
    stage, microbatch = kind_stage % stages, row % count
    is_free = (stage[1:] != stage[:-1]) | ((kind_stage[1:] != kind_stage[:-1]) & (microbatch[1:] != microbatch[:-1]))
    places: list[int] = np.flatnonzero(is_free).tolist()
    return places


def _traded(rows: Rows, trades: list[tuple[int, int]]) -> Rows:
    """The rows with the action at each place and the one after it exchanged."""
    changed = list(rows)
    for rank, place in trades:
        row = changed[rank].copy()
        row[[place, place + 1]] = row[[place + 1, place]]
        changed[rank] = row
    return tuple(changed)


def _combined(
    rows: Rows, rows_s: float, trades: list[tuple[int, int]], makespans: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[Rows]:
    """The best trade alone, then together with the best of one more rank each time."""
    chosen: list[tuple[int, int]] = []
    combined = []
    for index in np.argsort(makespans, kind="stable").tolist():
        rank = trades[index][0]
        if makespans[index] < rows_s and rank not in {other for other, _ in chosen}:
            chosen.append(trades[index])
            combined.append(_traded(rows, chosen))
    return combined
