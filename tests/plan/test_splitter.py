"""Splits of several stages a rank: held against all splits of small chains."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations

import pytest

from partition.plan import Candidate, Search, Segment
from partition.plan.layout import Layout
from partition.plan.shape import Shape
from partition.plan.splitter import Splitter
from partition.schedule import GENERATORS

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


class _Unhurried(Splitter):
    """Looks at every stage, however much its layers hold."""

    def _longest(self, most: float = 1.0) -> Callable[[int, int], int]:
        del most
        return super()._longest(math.inf)


@pytest.mark.parametrize("schedule", ["1f1b", "zb_h2", "zbv", "interleaved_1f1b", "gpipe"])
@pytest.mark.parametrize("seed", range(3))
def test_no_split_that_fits_or_comes_closest_is_missed(schedule: str, seed: int) -> None:
    """With room for nothing, for almost all, and for all: the splits are those of a search that leaves nothing out."""
    choose = random.Random(seed)
    widths = [choose.choice((4, 30, 200)) for _ in range(10)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    config, stages = build_config(model=model), 2 if GENERATORS[schedule].usual_stages_per_rank == 1 else 4
    layout = Layout.of(schedule, 2, (6, 6, 5, 5), stages)
    for limit in (1, 2**14, 2**16, 2**18):
        cluster = Search(with_memory(config, limit, choose.randint(limit // 2 + 1, 2 * limit))).cluster
        model_costs = Search(config).costs
        found = Splitter(cluster, model_costs, 22).splits(layout)
        assert found == _Unhurried(cluster, model_costs, 22).splits(layout)
