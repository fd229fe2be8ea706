"""Whether any split of a chain fits its devices, without looking at seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count

from partition.costs import Cluster, CostModel
from partition.plan.constraints import Constraints
from partition.plan.layout import Layout
from partition.plan.microbatches import size_classes
from partition.plan.occupancy import StageOccupancy
from partition.plan.peaks import StagePeaks
from partition.plan.stage_needs import KnownStages


def some_split_fits(
    layout: Layout,
    sizes: Sequence[int],
    cluster: Cluster,
    model: CostModel,
    constraints: Constraints,
    *,
    is_recomputing: bool = False,
) -> bool:
    """Whether the layers can be cut into contiguous stages, one a rank, that fit devices in their order.

    `layout` has the schedule and microbatches of the same pattern as `sizes`, the examples of each. Exact: for every
    number of layers covered, the first device on which stages can end is all that matters to those that follow: under
    pins there are no more devices than stages. With `is_recomputing` a stage may be computed again, in either form.
    """
    distinct = size_classes(tuple(sizes))[0]
    peaks = StagePeaks(layout, lambda stage: StageOccupancy(stage, distinct, len(sizes)), KnownStages(model))

    def needed_bytes(index: int, first: int, last: int) -> int:
        needed = peaks.plain(index, first, last)
        return min(needed, peaks.recomputing(index, first, last)) if is_recomputing else needed

    def admits(device: int, first: int, last: int) -> bool:
        return constraints.is_free or constraints.admits(device, first, last)

    layers, num_stages = model.network.num_layers, layout.schedule.num_stages
    ends: dict[int, int] = {0: -1}
    """For every number of layers that the stages so far can cover, the first device that the last of them can have."""
    for index in range(num_stages):
        following: dict[int, int] = {}
        for first, device in sorted(ends.items()):
            # Every stage after this one takes a layer and a device.
            left = num_stages - 1 - index
            limits = [one.memory_bytes for one in cluster.devices[device + 1 : len(cluster.devices) - left]]
            for last in range(first, layers - left) if left else (layers - 1,):
                needed = needed_bytes(index, first, last)
                may_be = (place for place, limit in enumerate(limits) if limit >= needed)
                place = next((place for place in may_be if admits(device + 1 + place, first, last)), None)
                if place is not None:
                    following[last + 1] = min(following.get(last + 1, len(cluster.devices)), device + 1 + place)
        ends = following
    return layers in ends


def may_hold(held_bytes: Sequence[int], limits: Sequence[int]) -> bool:
    """Whether devices may have room for layers, each of which one of them holds; where not, no split fits.

    Together they must hold all, and of the layers of any size and above each device holds a whole number.
    """
    at_least = dict(zip(sorted(held_bytes, reverse=True), count(1), strict=False))
    of_limits = Counter(limits)
    whole = (
        sum(times * (limit // size) for limit, times in of_limits.items()) >= number
        for size, number in at_least.items()
        if size
    )
    return sum(held_bytes) <= sum(limits) and all(whole)
