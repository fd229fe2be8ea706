"""Orders of devices under pins: all that have a split, or some that do where there are too many."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from partition.plan.constraints import Constraints, Pin, Run
from partition.plan.orders import MOST_ORDERS
from partition.plan.pinned_orders import pinned_orders

from .constraint_cases import allowed_splits, random_constraints

FIGURES = ([3.0, 1.0, 2.0, 0.0],)


@pytest.mark.parametrize("seed", range(60))
def test_every_order_that_has_a_split_is_tried_up_to_alike_devices(seed: int) -> None:
    """Held against all permutations; of like devices that nothing is pinned to one stands for another."""
    choose = random.Random(seed)
    constraints = random_constraints(choose, choose.randint(2, 7), 4)
    kinds = [choose.choice("ab") for _ in range(4)]
    pinned = constraints.pinned_devices

    def told_apart(order: tuple[int, ...]) -> tuple[object, ...]:
        return tuple(device if device in pinned else kinds[device] for device in order)

    for placement in ((0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 1, 0)):
        count = max(placement) + 1
        orders = pinned_orders(constraints, placement, kinds, FIGURES)
        every = {told_apart(order) for order in permutations(range(4), count)
                 if allowed_splits(constraints, [order[at] for at in placement])}  # fmt: skip
        assert {told_apart(order) for order in orders.tried} == every
        assert orders.is_exhaustive
        assert orders.total == len(orders.tried) == len(every)


@pytest.mark.parametrize("pins", [((0, 5), (30, 2)), ((39, 0),), ((0, 15), (1, 14), (2, 13), (39, 1))])
def test_of_too_many_some_have_a_split(pins: tuple[tuple[int, int], ...]) -> None:
    """Sixteen devices of four kinds, as many stages."""
    constraints = Constraints(num_layers=40, pins=tuple(Pin(Run(layer, layer), device) for layer, device in pins))
    figures = [float(device * 7 % 16) for device in range(16)]
    orders = pinned_orders(constraints, range(16), [device % 4 for device in range(16)], (figures,))
    assert 1 <= len(orders.tried) <= MOST_ORDERS
    assert not orders.is_exhaustive
    assert "not proved over orders" in orders.in_words
    assert all(sorted(order) == list(range(16)) and constraints.has_split(order) for order in orders.tried)


def test_too_few_devices_for_the_pins() -> None:
    """There is no order then."""
    constraints = Constraints(num_layers=40, pins=tuple(Pin(Run(at, at), at) for at in range(10)))
    assert pinned_orders(constraints, range(4), [0] * 16, ()).tried == ()


def test_no_more_are_tried_than_there_is_time_for() -> None:
    """Of four orders one."""
    constraints = Constraints(num_layers=8, pins=(Pin(Run(4, 4), 0),))
    assert len(pinned_orders(constraints, range(4), [0] * 4, ()).tried) == 4
    assert len(pinned_orders(constraints, range(4), [0] * 4, (), most=1).tried) == 1


def test_layers_pinned_to_every_device_leave_one_order() -> None:
    """Nine unlike devices have more orders than are listed, and one of them has a split; with a pin gone wrong none."""
    asked = (3, 0, 7, 5, 8, 2, 4, 1, 6)
    pins = tuple(Pin(Run(layer, layer), device) for layer, device in enumerate(asked))
    orders = pinned_orders(Constraints(num_layers=10, pins=pins), range(9), range(9), ())
    assert (orders.tried, orders.total, orders.is_exhaustive) == ((asked,), 1, True)
    back = (*pins[:8], Pin(Run(8, 8), 3), Pin(Run(9, 9), 6))
    orders = pinned_orders(Constraints(num_layers=10, pins=back), range(9), range(9), ())
    assert (orders.tried, orders.is_exhaustive) == ((), True)
