"""Every split of stages that a schedule places, where these are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from partition.plan.constraints import Constraints
from partition.plan.split import Segment

MOST_SPLITS_TRIED = 100
"""Where several stages share a device, so few splits are all tried."""


def few_splits(constraints: Constraints, placement: Sequence[int]) -> list[tuple[Segment, ...]]:
    """Every split over stages placed so, where there are no more than a hundred; else none."""
    num_cuts, (_, *inner, num_layers) = len(placement) - 1, constraints.edges
    if math.comb(len(inner), num_cuts) > MOST_SPLITS_TRIED:
        return []
    found = []
    for cuts in combinations(inner, num_cuts):
        ends = zip((0, *cuts), (*cuts, num_layers), placement, strict=True)
        found.append(tuple(Segment(rank, first, end - 1) for first, end, rank in ends))
    return [split for split in found if all(constraints.admits(*segment[:3]) for segment in split)]
