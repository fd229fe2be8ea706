"""Local improvement of any schedule: neighbouring actions of a rank trade places as long as it pays."""

from __future__ import annotations

import numpy as np

from partition.schedule.batch import Problem, Rows, price
from partition.schedule.coded import Integers
from partition.schedule.lanes import Indices


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
