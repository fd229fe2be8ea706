"""The best schedule found for given costs, transfer times and memory limits: "auto".

    1. every generator that is defined on the placement, its backward whole and split (`candidates`)
    2. list scheduling under several policies (`listing`)
    3. on ranks of one stage each, the best warm-up and delay of every rank (`improvement`)
    4. from the best of these, trades of neighbouring actions (`improvement`)

All candidates are replayed exactly, and the best is taken: it is never worse than a generator that fits. Nothing is
drawn at random and all loops are counted, so that the same question has the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from partition.errors import ScheduleMemoryError
from partition.schedule.actions import Schedule
from partition.schedule.auto.bounds import busiest_rank_s, lower_bound_s
from partition.schedule.auto.candidates import generated_rows, listed_rows
from partition.schedule.auto.improvement import improve_pattern, improve_rows, rows_of, starting_patterns
from partition.schedule.auto.problem import Problem, Rows, price
from partition.schedule.fast.coded import decode

_LIST_REPLAYS = 20
"""replays that take as long as one list schedule"""
_STARTS = 3
"""candidates from which trades start"""
_NEAR = 1 + 1e-12
"""a makespan this close to the lower bound is the bound, but for rounding"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best schedule found, and how good it can be at most."""

    schedule: Schedule
    """computation only"""
    origin: str
    """what it grew from: the name of a generator, `list`, or `pattern`"""
    makespan_s: float
    lower_bound_s: float
    """no schedule of these stages on these ranks is quicker"""
    busiest_rank_s: float
    """work of the busiest rank"""
    replayed: int
    """schedules replayed on the way"""

    @property
    def gap(self) -> float:
        """How much longer it takes than the lower bound, as a share of the bound; 0 is proof that it is the best."""
        # Sums in another order may round the bound above a makespan that meets it.
        return max(self.makespan_s / self.lower_bound_s - 1.0, 0.0) if self.lower_bound_s > 0 else 0.0


class _Candidate(NamedTuple):
    """A schedule with its price."""

    makespan_s: float
    origin: str
    rows: Rows


def search(problem: Problem, *, iterations: int = 20, most_actions: int = 10_000_000) -> Found:
    """Find a schedule.

    `iterations` bounds each loop of improvement; `most_actions` bounds the computations replayed in all (about a
    microsecond each), so that large schedules are improved less. Raises ScheduleMemoryError, with the bytes wanted and
    allowed, where no candidate fits the memory.
    """
    allowed = most_actions // (3 * problem.num_stages * problem.num_microbatches)
    bound_s = lower_bound_s(problem.costs, problem.placement, problem.limits_bytes)
    candidates, replayed = _candidates(problem, bound_s, iterations, allowed)
    best = candidates[0]
    for place, start in enumerate(candidates[:_STARTS]):
        if best.makespan_s > bound_s * _NEAR:
            most = (allowed - replayed) // (_STARTS - place)
            rows, makespan_s, tried = improve_rows(start.rows, start.makespan_s, problem, iterations, most)
            replayed += tried
            best = min(best, _Candidate(makespan_s, start.origin, rows), key=lambda candidate: candidate.makespan_s)
    return Found(
        schedule=_schedule(best.rows, problem),
        origin=best.origin,
        makespan_s=best.makespan_s,
        lower_bound_s=bound_s,
        busiest_rank_s=busiest_rank_s(problem.costs, problem.placement),
        replayed=replayed,
    )


def _candidates(problem: Problem, bound_s: float, iterations: int, allowed: int) -> tuple[list[_Candidate], int]:
    """Candidates that fit, of different makespans, the quickest first; and how many schedules were replayed."""
    rows = {**generated_rows(problem), **listed_rows(problem, max(2, allowed // _LIST_REPLAYS))}
    prices = price(list(rows.values()), problem)
    found = [
        _Candidate(makespan_s, name.split("/")[0], rows[name])
        for name, makespan_s in zip(rows, prices.makespan_s.tolist(), strict=True)
    ]
    replayed, quickest_s = len(rows), min(candidate.makespan_s for candidate in found)
    if len(set(problem.placement)) == problem.num_stages and quickest_s > bound_s * _NEAR:
        patterns, tried = _patterns(problem, iterations, allowed // 2)
        found, replayed = found + patterns, replayed + tried
    fitting = [candidate for candidate in found if np.isfinite(candidate.makespan_s)]
    if not fitting:
        raise _too_little_memory(problem, int(prices.excess_bytes.min()))
    distinct = {candidate.makespan_s: candidate for candidate in reversed(fitting)}
    return sorted(distinct.values(), key=lambda candidate: candidate.makespan_s), replayed


def _patterns(problem: Problem, iterations: int, most: int) -> tuple[list[_Candidate], int]:
    """The best pattern reached from each of the starting ones; and how many schedules were replayed."""
    starts = starting_patterns(problem)
    results = [improve_pattern(start, problem, iterations, most // len(starts)) for start in starts]
    found = [_Candidate(makespan_s, "pattern", rows_of(pattern, problem)) for pattern, makespan_s, _ in results]
    return found, sum(tried for _, _, tried in results)


def _schedule(rows: Rows, problem: Problem) -> Schedule:
    count = problem.num_microbatches
    return Schedule(
        name="auto",
        num_stages=problem.num_stages,
        num_microbatches=count,
        placement=problem.placement,
        rows=tuple(decode(row, problem.num_stages, count) for row in rows),
    )


def _too_little_memory(problem: Problem, excess_bytes: int) -> ScheduleMemoryError:
    return ScheduleMemoryError(
        f"no schedule of {problem.num_stages} stages and {problem.num_microbatches} microbatches fits "
        f"{list(problem.limits_bytes)} bytes a rank: the smallest found needs {excess_bytes} bytes more; "
        "take more microbatches or more stages",
        excess_bytes=excess_bytes,
    )
