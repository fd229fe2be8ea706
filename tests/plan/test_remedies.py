"""What would be enough where nothing fits: promises that are kept."""

from __future__ import annotations

import pytest

from partition.plan import Search, compare, compare_with
from partition.plan.explanation import Explanation, explain
from partition.plan.remedies import large_layer, more_devices
from partition.plan.variation import Quantity

from .conftest import build_config, with_memory


def refused(*limits: int, **planner: object) -> Search:
    search = Search(with_memory(build_config(planner=planner), *limits))
    assert compare_with(search).chosen is None
    return search


def explained(search: Search) -> Explanation:
    return explain(search, compare_with(search), with_break_even=False)


def test_fewest_devices_are_enough_and_one_less_is_not() -> None:
    search = refused(2000, 2000)
    found = more_devices(search)
    assert found is not None
    assert found.num_devices > 2
    config = build_config(planner={"schedules": ("1f1b",)})
    enough = compare(with_memory(config, *[2000] * found.num_devices))
    named = enough.candidate(found.candidate)
    assert named is not None
    assert named.feasible
    fewer = compare(with_memory(config, *[2000] * (found.num_devices - 1)))
    assert not any(one.feasible for one in fewer.candidates)


def test_no_number_of_devices_helps_a_layer_that_is_too_large() -> None:
    search = refused(600, 600)
    assert more_devices(search) is None
    found = large_layer(search)
    assert found is not None
    sizes = [sum(search.costs.stage(layer, layer).static_bytes(1).values()) for layer in range(4)]
    assert (found.layer, found.needed_bytes, found.largest_bytes) == (sizes.index(max(sizes)), max(sizes), 600)


def test_a_layer_is_not_blamed_where_a_device_holds_it() -> None:
    search = refused(1500, 1500)
    sizes = [sum(search.costs.stage(layer, layer).static_bytes(1).values()) for layer in range(4)]
    assert max(sizes) <= 1500
    assert large_layer(search) is None


def test_unlike_devices_are_not_multiplied() -> None:
    assert more_devices(refused(1500, 1600)) is None


@pytest.mark.parametrize(("limits", "planner"), [((2000, 2000), {}), ((4000,), {"strategies": ("whole",)})])
def test_least_changes_fit_when_made(limits: tuple[int, ...], planner: dict[str, object]) -> None:
    search = refused(*limits, **planner)
    found = explained(search).break_even
    assert found is not None
    flips = [("memory", flip) for flip in found.memory] + [("minibatch_size", flip) for flip in found.minibatch_size]
    assert flips
    for name, flip in flips:
        variation = Quantity(search=search, name=name).at(flip.factor)
        assert variation is not None
        chosen = compare_with(variation.search()).chosen
        assert chosen is not None
        assert chosen.strategy == flip.strategy


def test_nothing_of_it_is_asked_where_something_fits() -> None:
    search = Search(build_config())
    found = explained(search)
    assert (found.break_even, found.more_devices, found.large_layer) == (None, None, None)
