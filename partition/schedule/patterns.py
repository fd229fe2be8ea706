"""Schedules of one stage a rank that two numbers a rank describe, and the search for the best numbers.

warmup    forwards before the first backward
delay     microbatches by which W trails I; -1: backward whole

warmup 2, delay 1     F0 F1 F2 I0 F3 I1 W0 F4 I2 W1 ...
1F1B is (p-1-r, -1), ZB-H1 (p-1-r, r), ZB-H2 (2(p-1-r), 2r) on rank r
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from partition.schedule.actions import Kind
from partition.schedule.batch import Problem, Rows, price
from partition.schedule.coded import KIND_CODE, Integers

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
