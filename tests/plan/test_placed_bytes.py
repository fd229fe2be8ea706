"""What ranks hold on splits of several stages a rank, and the search of one that fits: against trying every split."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from partition.plan import Search, Segment
from partition.plan.candidate import rank_loads
from partition.plan.placed_bytes import PlacedBytes, fitting_split
from partition.plan.shape import Shape

from .conftest import build_config, with_memory

NUM_LAYERS = 9


def random_search(seed: int) -> tuple[Search, Shape, list[tuple[Segment, ...]]]:
    """Nine layers of unequal widths in six stages on three ranks, and all 56 splits."""
    choose = random.Random(seed)
    widths = [choose.randint(4, 60) for _ in range(NUM_LAYERS + 1)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    config = build_config(model=model)
    shape = Shape(name="any", strategy="pipeline", minibatch_size=22, num_microbatches=choose.choice([3, 4, 6]),
                  num_ranks=3, num_stages=6, schedule=choose.choice(["zbv", "interleaved_1f1b"]))  # fmt: skip
    search = Search(with_memory(config, *[2**30] * 3))
    placement = search.layouts_on(shape, [])[0].schedule.placement
    ends = [(0, *cuts, NUM_LAYERS) for cuts in combinations(range(1, NUM_LAYERS), 5)]
    splits = [tuple(Segment(rank, of[k], of[k + 1] - 1) for k, rank in enumerate(placement)) for of in ends]
    return search, shape, splits


def peaks(search: Search, shape: Shape, split: tuple[Segment, ...]) -> list[int]:
    return [load.peak_bytes for load in rank_loads(search.stages_of(shape, split))]


@pytest.mark.parametrize("seed", range(6))
def test_a_split_fits_up_to_its_peaks_and_is_found_where_there_is_one(seed: int) -> None:
    """Limits are the peaks of a split: that one fits and nothing tighter does, whichever split the search begins at."""
    search, shape, splits = random_search(seed)
    layout, choose = search.layouts_on(shape, [])[0], random.Random(seed)
    of_splits = {split: peaks(search, shape, split) for split in splits}
    aim = choose.choice(splits)
    for missing in (0, 1):
        limits = [of_splits[aim][0] - missing, *of_splits[aim][1:]]
        placed = PlacedBytes(layout, search.model, limits)
        fitting = {split for split, of in of_splits.items() if all(a <= b for a, b in zip(of, limits, strict=True))}
        assert {split for split in splits if placed.fits(split)} == fitting
        found = fitting_split(placed, choose.choice(splits))
        assert (found in fitting) if fitting else (found is None)
        assert bool(fitting) or missing


def test_the_planner_finds_the_only_split_of_many_that_fits() -> None:
    """A pipeline that was called too large on the split most even in bytes, with 330 splits to choose from."""
    choose = random.Random(1)
    widths = [choose.randint(4, 60) for _ in range(13)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    planner = {"strategies": ("pipeline",), "schedules": ("zbv",), "num_stages": (8,), "num_microbatches": (4,)}
    config = build_config(model=model, planner=planner)
    roomy = Search(with_memory(config, *[2**30] * 4))
    (shape,) = roomy.shapes()
    placement = roomy.layouts_on(shape, [])[0].schedule.placement
    ends = [(0, *cuts, 12) for cuts in combinations(range(1, 12), 7)]
    splits = [tuple(Segment(rank, of[k], of[k + 1] - 1) for k, rank in enumerate(placement)) for of in ends]
    for aim in choose.sample(splits, 10):
        search = Search(with_memory(config, *peaks(roomy, shape, aim)))
        (candidate,) = search.candidates()
        assert candidate.feasible
