"""When nothing fits: the least change of devices that would, and the layer that no split can help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from partition.config.cluster import LARGEST_DEVICE_COUNT
from partition.plan.candidate import Candidate
from partition.plan.choice import is_out_of_reach
from partition.plan.search import Search
from partition.plan.shape import STRATEGIES, Shape
from partition.plan.variation import Variation

MOST_TIMES = 16
"""Devices are tried up to so many times as many as there are."""


@dataclass(frozen=True, kw_only=True)
class MoreDevices:
    """The fewest devices of the same kind on which something fits."""

    num_devices: int
    candidate: str


@dataclass(frozen=True, kw_only=True)
class LargeLayer:
    """A layer that is too large for every device, whatever is done with the other layers and the minibatch."""

    layer: int
    needed_bytes: int
    """Of its parameters, their gradients and the optimizer's state."""
    largest_bytes: int
    """Of the largest device."""


def large_layer(search: Search) -> LargeLayer | None:
    """The layer that needs most, if that is more than any device has."""
    needs = {
        layer: sum(search.costs.stage(layer, layer).static_bytes(1).values())
        for layer in range(search.costs.num_layers)
    }
    largest_bytes = max(device.memory_bytes for device in search.cluster.devices)
    layer = max(needs, key=lambda one: (needs[one], -one))
    if needs[layer] <= largest_bytes:
        return None
    return LargeLayer(layer=layer, needed_bytes=needs[layer], largest_bytes=largest_bytes)


def more_devices(search: Search) -> MoreDevices | None:
    """The fewest that are enough, by doubling and then bisection; None where devices differ or no number is."""
    devices = search.cluster.devices
    if len({device.figures for device in devices}) > 1 or search.cluster.links.inter_node is not None:
        return None
    few, many = len(devices), 2 * len(devices)
    while many <= min(MOST_TIMES * len(devices), LARGEST_DEVICE_COUNT) and not _first_fitting(search, many):
        few, many = many, 2 * many
    if many > min(MOST_TIMES * len(devices), LARGEST_DEVICE_COUNT):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _first_fitting(search, middle) else (middle, many)
    found = _first_fitting(search, many)
    assert found is not None, "so many are known to be enough"
    return MoreDevices(num_devices=many, candidate=found.name)


def _first_fitting(search: Search, num_devices: int) -> Candidate | None:
    """What fits so many devices, of the ways that need least of each: all stages of 1F1B, and shared parameters."""
    first = search.cluster.devices[0]
    devices = tuple(replace(first, name=f"{first.kind}:{index}") for index in range(num_devices))
    variation = Variation(
        settings=search.settings, cluster=replace(search.cluster, devices=devices), costs=search.costs
    )
    asked = search.settings.planner.strategies or STRATEGIES
    ways: list[dict[str, object]] = []
    if "sharded" in asked:
        ways.append({"strategies": ("sharded",)})
    if "pipeline" in asked and "1f1b" in (search.settings.planner.schedules or ("1f1b",)):
        stages = min(num_devices, search.costs.num_layers)
        ways.append({"strategies": ("pipeline",), "schedules": ("1f1b",), "num_stages": (stages,)})
    # One that fits is all that is asked for, so no more than that are priced.
    every = (one for way in ways for one in _candidates(variation.search(**way)))
    return next((one for one in every if one.feasible and not is_out_of_reach(one)), None)


def _candidates(search: Search) -> Iterator[Candidate]:
    """Those of the search in their order, each priced as it is come to."""
    for offer in search.offers():
        yield from search.price_all(offer) if isinstance(offer, Shape) else [offer]
