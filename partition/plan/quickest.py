"""The candidate of a way over several devices on the best of some splits, without replaying those that cannot be it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from partition.plan.candidate import Candidate
from partition.plan.split import Segment

if TYPE_CHECKING:
    from partition.plan.search import Search, Shape


def quickest(search: Search, shape: Shape, splits: Sequence[Sequence[Segment]]) -> Candidate:
    """The candidate that fits and has the least step; else the quickest of those that do not. The first of equals."""
    bounds = [search.bound_of(shape, split) for split in splits] if len(splits) > 1 else [0.0]
    priced: dict[int, Candidate] = {}
    best_s = math.inf
    for index in sorted(range(len(splits)), key=lambda at: bounds[at]):
        if bounds[index] <= best_s:
            candidate = priced[index] = search.price(shape, splits[index])
            assert candidate.predicted is not None, "a candidate with a layout is priced"
            if candidate.feasible:
                best_s = min(best_s, candidate.predicted.step_s)
    return min((priced[index] for index in sorted(priced)), key=_by_step)


def _by_step(candidate: Candidate) -> tuple[bool, float]:
    assert candidate.predicted is not None, "a candidate with a layout is priced"
    return not candidate.feasible, candidate.predicted.step_s
