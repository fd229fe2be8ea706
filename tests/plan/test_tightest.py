"""Whether some split fits, without seconds: as the planner's splits do."""

from __future__ import annotations

import random

import pytest

from partition.plan import Search
from partition.plan.candidate import rank_loads
from partition.plan.layout import Layout
from partition.plan.shape import Shape
from partition.plan.splitter import Splitter
from partition.plan.tightest import may_hold, some_split_fits

from .conftest import build_config, with_memory


@pytest.mark.parametrize("seed", range(30))
def test_it_says_what_the_splitter_finds(seed: int) -> None:
    choose = random.Random(seed)
    widths = [choose.randint(2, 40) for _ in range(7)]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1]}
    limits = [choose.randint(3000, 12000) for _ in range(4)]
    search = Search(with_memory(build_config(model=model), *limits))
    shape = Shape(name="any", strategy="pipeline", minibatch_size=choose.randint(5, 40), num_microbatches=5,
                  num_ranks=3, num_stages=3, schedule=choose.choice(["gpipe", "1f1b", "zb_h1"]))  # fmt: skip
    sizes = shape.sizes[0]
    layout = Layout.of(shape.schedule, 3, sizes, 3)
    (segments,) = Splitter(search.cluster, search.model, shape.minibatch_size).splits(layout)
    loads = rank_loads(search.stages_of(shape, segments))
    is_found = all(load.peak_bytes <= load.limit_bytes for load in loads)
    assert some_split_fits(layout, sizes, search.cluster, search.model, search.constraints) is is_found


def test_the_splits_above_are_of_both_kinds() -> None:
    """Room for everything and room for nothing."""
    shape = Shape(name="any", strategy="pipeline", minibatch_size=6, num_microbatches=3, num_ranks=3, num_stages=3)
    layout = Layout.of("1f1b", 3, shape.sizes[0], 3)
    for limit, fits in ((2**20, True), (100, False)):
        search = Search(with_memory(build_config(), *(limit,) * 3))
        assert some_split_fits(layout, shape.sizes[0], search.cluster, search.model, search.constraints) is fits


def fits_somehow(held: list[int], limits: list[int]) -> bool:
    """Whether layers can be given to devices, in whatever order."""
    if not held:
        return True
    return any(
        limit >= held[0] and fits_somehow(held[1:], [*limits[:place], limit - held[0], *limits[place + 1 :]])
        for place, limit in enumerate(limits)
    )


def test_what_can_be_given_to_devices_may_be_held_and_much_that_cannot_may_not() -> None:
    random_of, refused, impossible = random.Random(0), 0, 0
    for _ in range(400):
        held = [random_of.choice([0, 3, 5, 12, 12, 12]) for _ in range(random_of.randint(1, 7))]
        limits = [random_of.randint(1, 30) for _ in range(random_of.randint(1, 3))]
        is_possible, is_admitted = fits_somehow(held, limits), may_hold(held, limits)
        assert is_admitted or not is_possible
        impossible += not is_possible
        refused += not is_admitted
    assert refused > 0.9 * impossible


def test_layers_are_not_cut_to_fill_devices() -> None:
    """Two devices of 30 have room for 60, and for four layers of 12."""
    assert may_hold([12] * 4, [30, 30])
    assert not may_hold([12] * 5, [30, 30])
    assert not may_hold([1] * 61, [30, 30])
