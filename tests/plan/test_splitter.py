"""Splits of several stages a rank: held against all splits of small chains."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from partition.plan import Candidate, Search, Segment
from partition.plan.shape import Shape

from .conftest import build_config, with_memory


def all_splits(search: Search, shape: Shape) -> list[Candidate]:
    """Every way to cut the layers into the stages of a shape, priced."""
    placement = search._shapes_layouts(shape)[0].schedule.placement
    layers = search.network.num_layers
    found = []
    for cuts in combinations(range(1, layers), shape.num_stages - 1):
        ends = (0, *cuts, layers)
        segments = [Segment(rank, ends[k], ends[k + 1] - 1) for k, rank in enumerate(placement)]
        found.append(search.price(shape, segments))
    return found


@pytest.mark.parametrize("schedule", ["zbv", "interleaved_1f1b"])
@pytest.mark.parametrize("seed", range(12))
def test_they_are_near_the_best_and_fit_where_most_do(schedule: str, seed: int) -> None:
    """Unequal widths on two devices, of which the tighter holds a little more than the most even split needs."""
    choose = random.Random(seed)
    widths = [choose.randint(4, 60) for _ in range(7)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    config = build_config(model=model, planner={"strategies": ("pipeline",), "schedules": (schedule,),
                                                "num_stages": (4,), "num_microbatches": (4,)})  # fmt: skip
    shape = Shape(name="any", strategy="pipeline", minibatch_size=22, num_microbatches=4, num_ranks=2, num_stages=4,
                  schedule=schedule)  # fmt: skip
    unlimited = all_splits(Search(config), shape)
    least = min(max(one.predicted.peak_bytes) for one in unlimited if one.predicted)
    for limit in (2**30, int(1.3 * least)):
        search = Search(with_memory(config, limit, limit))
        steps = [one.predicted.step_s for one in all_splits(search, shape) if one.feasible and one.predicted]
        (found,) = search.candidates()
        assert found.predicted is not None
        assert found.feasible
        assert found.predicted.step_s <= 1.02 * min(steps)
