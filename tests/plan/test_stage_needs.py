"""What stages need, shared by all orders of devices: the figures of each order alone."""

from __future__ import annotations

import random

from partition.plan import Search
from partition.plan.candidate import rank_loads
from partition.plan.shape import Shape
from partition.plan.split import Segment
from partition.plan.splitter import Splitter
from partition.plan.stage_needs import RankBytes, StageNeeds

from .conftest import build_config, with_memory
from .test_placed_bytes import random_search


def test_the_peaks_of_ranks_are_those_of_their_stages() -> None:
    for seed in range(4):
        search, shape, splits = random_search(seed)
        ranks = RankBytes(search.layouts_on(shape, [])[0], search.model)
        for split in random.Random(seed).sample(splits, 8):
            assert ranks.peaks(split) == tuple(load.peak_bytes for load in rank_loads(search.stages_of(shape, split)))


def test_peaks_do_not_ask_which_devices_the_stages_are_on() -> None:
    search, shape, splits = random_search(0)
    ranks = RankBytes(search.layouts_on(shape, [])[0], search.model)
    elsewhere = [Segment(2 - device, first, last) for device, first, last, _ in splits[0]]
    assert ranks.peaks(elsewhere) == ranks.peaks(splits[0])


def test_orders_that_share_find_the_splits_that_each_finds_alone() -> None:
    """In tight memory, with one stage a rank and with two, keeping everything and computing again."""
    choose, num_tight = random.Random(3), 0
    for schedule, num_stages in (("1f1b", 3), ("zb_h2", 3), ("interleaved_1f1b", 6), ("zbv", 6)):
        widths = [choose.randint(4, 60) for _ in range(10)]
        model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
        shape = Shape(name="any", strategy="pipeline", minibatch_size=22, num_microbatches=4, num_ranks=3,
                      num_stages=num_stages, schedule=schedule)  # fmt: skip
        roomy = Search(with_memory(build_config(model=model), *[2**30] * 3))
        peak = max(load.peak_bytes for load in rank_loads(roomy.best_of(shape).stages))
        search = Search(with_memory(build_config(model=model), peak * 9 // 10, peak * 6 // 5, peak))
        layout, needs = search.layouts_on(shape, [])[0], StageNeeds(search.costs, search.sums)
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)):
            cluster = search.cluster.arranged(order)
            alone = Splitter(cluster, search.costs, 22, search.sums)
            shared = Splitter(cluster, search.costs, 22, search.sums, needs=needs)
            assert shared.splits(layout) == alone.splits(layout)
            assert shared.recomputing_splits(layout) == alone.recomputing_splits(layout)
            num_tight += not alone.unlimited(layout.schedule.placement, layout.sizes)
    assert num_tight == 16
