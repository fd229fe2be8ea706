"""Schedules to choose among: those of the generators and of list scheduling."""

from __future__ import annotations

from itertools import product

import numpy as np

from partition.errors import ScheduleError
from partition.schedule.actions import Kind
from partition.schedule.auto.listing import Policy, list_schedule
from partition.schedule.auto.problem import Problem, Rows
from partition.schedule.fast.coded import END, KIND_CODE, encode
from partition.schedule.generators import GENERATORS, generate

_PATIENCE = (0.0, 0.5, 1.0)
_MEMORY_SHARES = (1.0, 0.9, 0.8, 0.65)


def generated_rows(problem: Problem) -> dict[str, Rows]:
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


def listed_rows(problem: Problem, most: int) -> dict[str, Rows]:
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
