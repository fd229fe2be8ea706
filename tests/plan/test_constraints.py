"""What constraints allow, held against their definition on every split of small chains."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from partition.plan.constraints import Constraints, Pin, Run

from .constraint_cases import allowed_splits, is_allowed, random_constraints

V_OF_TWO = (0, 1, 1, 0)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("seed", range(150))
def test_splits_of_admitted_stages_are_those_allowed(seed: int) -> None:
    """Stage by stage the searches ask; together that is the definition, on any placement."""
    choose = random.Random(seed)
    layers = choose.randint(1, 8)
    constraints = random_constraints(choose, layers, 3)
    free = Constraints(num_layers=layers)
    for placement in ((0,), (0, 1), (1, 0), (2, 0, 1), V_OF_TWO, (0, 1, 0, 1)):
        for split in allowed_splits(free, placement):
            admitted = all(constraints.admits(*stage) for stage in split)
            assert admitted is is_allowed(constraints, split)
            assert bool(constraints.broken_by(split, NAMES)) is not admitted


@pytest.mark.parametrize("seed", range(150))
def test_whether_there_is_a_split_is_known_without_one(seed: int) -> None:
    """For devices in every order, and for placements that return to a device."""
    choose = random.Random(seed)
    constraints = random_constraints(choose, choose.randint(1, 8), 4)
    placements = [order for count in range(1, 5) for order in permutations(range(4), count)]
    for placement in (*placements, V_OF_TWO, (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 2, 2, 1, 0)):
        assert constraints.has_split(placement) is bool(allowed_splits(constraints, placement))


def test_runs_that_share_a_layer_are_one() -> None:
    """Neighbours are not."""
    constraints = Constraints(num_layers=8, together=(Run(1, 2), Run(3, 4), Run(4, 6)))
    assert constraints.edges == (0, 1, 3, 7, 8)
    assert constraints.block_of(5) == Run(3, 6)


def test_a_device_of_another_order_has_its_position() -> None:
    """One that takes no part is at none, and a stage that would need it is refused everywhere."""
    constraints = Constraints(num_layers=3, pins=(Pin(Run(0, 0), 2), Pin(Run(2, 2), 1)))
    assert [pin.device for pin in constraints.on((2, 0, 1)).pins] == [0, 2]
    without = constraints.on((2, 0))
    assert [pin.device for pin in without.pins] == [0, -1]
    assert not any(without.admits(device, 2, 2) for device in range(2))


def test_what_is_broken_is_named() -> None:
    """The run, and where it is instead."""
    constraints = Constraints(num_layers=4, together=(Run(0, 1),), pins=(Pin(Run(3, 3), 1),))
    assert constraints.broken_by([(0, 0, 1), (1, 2, 3)], NAMES) == ""
    assert constraints.broken_by([(0, 0, 0), (1, 1, 3)], NAMES) == (
        "layers 0-1 are to be kept together, and layer 1 is in another stage than the first"
    )
    assert constraints.broken_by([(1, 0, 1), (0, 2, 3)], NAMES) == "layer 3 is to be on b alone, and a holds layer 3"
    assert constraints.broken_by([(0, 0, 3), (1, 0, 3)], NAMES).endswith("b alone, and a and b hold layer 3")


def test_in_words() -> None:
    """The first few, by the names of devices."""
    constraints = Constraints(num_layers=20, together=(Run(0, 1),), pins=(Pin(Run(3, 3), 1),))
    assert constraints.in_words(NAMES) == "layers 0-1 kept together and layer 3 pinned to b"
    many = Constraints(num_layers=20, together=tuple(Run(at, at + 1) for at in range(0, 18, 3)))
    assert many.in_words(NAMES).endswith("layers 9-10 kept together and 2 more")
    twice = Constraints(num_layers=20, together=(Run(0, 1), Run(0, 1)), pins=(Pin(Run(3, 3), 1),))
    assert twice.in_words(("0", "1")) == "layers 0-1 kept together and layer 3 pinned to device 1"
