"""The best schedule found for given costs, transfer times and memory limits: "auto".

    1. every generator that is defined on the placement, its backward whole and split
    2. list scheduling under several policies (`listing`)
    3. on ranks of one stage each, the best warm-up and delay of every rank (`patterns`)
    4. from the best of these, trades of neighbouring actions (`moves`)

All candidates are replayed exactly, and the best is taken: it is never worse than a generator that fits. Nothing is
drawn at random and all loops are counted, so that the same question has the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from partition.errors import ScheduleError
from partition.schedule.actions import Kind, Schedule
from partition.schedule.batch import Problem, Rows, price
from partition.schedule.bounds import busiest_rank_s, lower_bound_s
from partition.schedule.coded import END, KIND_CODE, decode, encode
from partition.schedule.generators import GENERATORS, generate
from partition.schedule.listing import Policy, list_schedule
from partition.schedule.moves import improve_rows
from partition.schedule.patterns import improve_pattern, rows_of, starting_patterns

_PATIENCE = (0.0, 0.5, 1.0)
_MEMORY_SHARES = (1.0, 0.9, 0.8, 0.65)
_LIST_REPLAYS = 20
"""replays that take as long as one list schedule"""


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
        return self.makespan_s / self.lower_bound_s - 1.0 if self.lower_bound_s > 0 else 0.0


def search(problem: Problem, *, iterations: int = 20, most_actions: int = 10_000_000) -> Found:
    """Find a schedule.

    `iterations` bounds each loop of improvement; `most_actions` bounds the computations replayed in all (about a
    microsecond each), so that large schedules are improved less. Raises ScheduleError, with the bytes wanted and
    allowed, where no candidate fits the memory.
    """
    allowed = most_actions // (3 * problem.num_stages * problem.num_microbatches)
    candidates = {**_generated(problem), **_listed(problem, max(2, allowed // _LIST_REPLAYS))}
    names, rows = list(candidates), list(candidates.values())
    prices = price(rows, problem)
    chosen = int(np.argmin(prices.makespan_s))
    origin, best, best_s = names[chosen], rows[chosen], float(prices.makespan_s[chosen])
    replayed = len(rows)
    if len(set(problem.placement)) == problem.num_stages:
        pattern_rows, pattern_s, tried = _best_pattern(problem, iterations, allowed // 2)
        replayed += tried
        if pattern_s < best_s:
            origin, best, best_s = "pattern", pattern_rows, pattern_s
    if not np.isfinite(best_s):
        raise ScheduleError(_explain(problem, float(prices.excess_bytes.min())))
    best, best_s, tried = improve_rows(best, best_s, problem, iterations, allowed - replayed)
    return Found(
        schedule=_schedule(best, problem),
        origin=origin.split("/")[0],
        makespan_s=best_s,
        lower_bound_s=lower_bound_s(problem.costs, problem.placement, problem.limits_bytes),
        busiest_rank_s=busiest_rank_s(problem.costs, problem.placement),
        replayed=replayed + tried,
    )


def _generated(problem: Problem) -> dict[str, Rows]:
    """Rows of every generator that is defined on the placement and whose actions have costs; split ones beside."""
    found: dict[str, Rows] = {}
    for name, generator in GENERATORS.items():
        if generator.is_forward_only:
            continue
        try:
            schedule = generate(
                name,
                num_ranks=problem.num_ranks,
                num_microbatches=problem.num_microbatches,
                placement=problem.placement,
            )
        except ScheduleError:
            continue
        kinds = {action.kind for row in schedule.rows for action in row}
        rows = tuple(row[row != END] for row in encode(schedule).rows)
        if kinds <= set(problem.costs.seconds):
            found[name] = rows
        if problem.can_split and Kind.B in kinds:
            found[f"{name}/split"] = _split(rows, problem)
    return found


def _split(rows: Rows, problem: Problem) -> Rows:
    """Every B as I and W."""
    per_kind = problem.num_stages * problem.num_microbatches
    code = {kind: KIND_CODE[kind] * per_kind for kind in (Kind.I, Kind.B, Kind.W)}
    is_whole = [row // per_kind == KIND_CODE[Kind.B] for row in rows]
    pairs = [
        np.stack([np.where(whole, row - code[Kind.B] + code[Kind.I], row), row - code[Kind.B] + code[Kind.W]], axis=1)
        for row, whole in zip(rows, is_whole, strict=True)
    ]
    kept = [np.stack([np.ones_like(whole), whole], axis=1) for whole in is_whole]
    return tuple(pair[keep].astype(np.int32) for pair, keep in zip(pairs, kept, strict=True))


def _listed(problem: Problem, most: int) -> dict[str, Rows]:
    """Rows of list scheduling under the first of the policies, the most useful of which come first."""
    shares = _MEMORY_SHARES if problem.limits_bytes else (1.0,)
    splits = [is_split for is_split in (True, False) if (problem.can_split if is_split else problem.can_merge)]
    policies = [
        Policy(is_split=is_split, is_weight_first=is_weight_first, patience=patience, memory_share=share)
        for is_weight_first, patience, share, is_split in product((False, True), _PATIENCE, shares, splits)
        if is_split or not is_weight_first
    ]
    listed = {
        f"list/{place}": list_schedule(problem.costs, problem.placement, problem.limits_bytes, policy)
        for place, policy in enumerate(policies[:most])
    }
    return {name: rows for name, rows in listed.items() if rows is not None}


def _best_pattern(problem: Problem, iterations: int, most: int) -> tuple[Rows, float, int]:
    """The best pattern reached from any of the starting ones."""
    starts = starting_patterns(problem)
    results = [improve_pattern(start, problem, iterations, most // len(starts)) for start in starts]
    pattern, pattern_s, _ = min(results, key=lambda result: result[1])
    return rows_of(pattern, problem), pattern_s, sum(tried for _, _, tried in results)


def _schedule(rows: Rows, problem: Problem) -> Schedule:
    count = problem.num_microbatches
    return Schedule(
        name="auto",
        num_stages=problem.num_stages,
        num_microbatches=count,
        placement=problem.placement,
        rows=tuple(decode(row, problem.num_stages, count) for row in rows),
    )


def _explain(problem: Problem, excess_bytes: float) -> str:
    return (
        f"no schedule of {problem.num_stages} stages and {problem.num_microbatches} microbatches fits "
        f"{list(problem.limits_bytes)} bytes a rank: the smallest found needs {excess_bytes:.0f} bytes more; "
        "take more microbatches or more stages"
    )
