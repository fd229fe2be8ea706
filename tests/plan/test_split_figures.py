"""The bounds of several splits at once are those of each alone, to the last bit, and no replay is below them."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from partition.plan import Search, Segment
from partition.plan.bounds import StepBounds
from partition.plan.shape import SPLIT_SCHEDULES, Shape, placement_of
from partition.plan.split_figures import SplitFigures

from .conftest import build_config


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv"])
def test_of_many_splits(schedule: str, num_replicas: int) -> None:
    choose = random.Random(schedule)
    widths = [choose.randint(4, 60) for _ in range(7)]
    rates = [{"kind": "simulated", "memory_bytes": 2**30, "flop_per_s": {"default": rate}, "memory_bytes_per_s": rate}
             for rate in (1e9, 3e9) * num_replicas]  # fmt: skip
    links = {"intra_node": {"bytes_per_s": 1e8, "latency_s": 1e-5}}
    search = Search(build_config(
        model={"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]},
        cluster={"devices": tuple(rates), "links": links},
    ))  # fmt: skip
    num_stages = 4 if schedule in ("interleaved_1f1b", "zbv") else 2
    shape = Shape(name="any", strategy="hybrid", minibatch_size=24, num_microbatches=4, num_ranks=2,
                  num_stages=num_stages, num_replicas=num_replicas, schedule=schedule)  # fmt: skip
    placement, splits = placement_of(shape), []
    for cuts in combinations(range(1, 6), num_stages - 1):
        ends = zip((0, *cuts), (*cuts, 6), placement, strict=True)
        splits.append(tuple(Segment(rank, first, end - 1) for first, end, rank in ends))

    def bounds_s(some: list[tuple[Segment, ...]]) -> list[float]:
        figures = SplitFigures.of(placement, shape.sizes[0], some, search.replica_cluster(num_replicas, 2), search.sums,
                                  num_replicas, splits_backward=schedule in SPLIT_SCHEDULES)  # fmt: skip
        return StepBounds(schedule=schedule, of=figures).seconds

    together = bounds_s(splits)
    assert together == [bounds_s([split])[0] for split in splits]
    for split, bound_s in zip(splits, together, strict=True):
        predicted = search.price(shape, split).predicted
        assert predicted is not None
        assert 0 < bound_s <= predicted.step_s
