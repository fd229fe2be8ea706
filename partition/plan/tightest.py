"""Whether any split of a chain fits its devices, without looking at seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from partition.costs import Cluster, CostModel, StageCost
from partition.plan.estimate import Layout
from partition.plan.microbatches import size_classes
from partition.plan.occupancy import StageOccupancy


def some_split_fits(
    layout: Layout, sizes: Sequence[int], cluster: Cluster, model: CostModel, *, is_recomputing: bool = False
) -> bool:
    """Whether the layers can be cut into contiguous stages, one a rank, that fit devices in their order.

    `layout` has the schedule and microbatches of the same pattern as `sizes`, the examples of each. Exact: for every
    number of layers covered, the first device on which stages can end is all that matters to those that follow. With
    `is_recomputing` a stage may keep nothing and be computed again.
    """
    distinct = size_classes(tuple(sizes))[0]
    occupancy = cache(lambda stage: StageOccupancy(stage, distinct, len(sizes)))

    @cache
    def peak_bytes(index: int, stage: StageCost, is_again: bool = False) -> int:
        of, moments = occupancy(stage), (layout.recomputing_everywhere if is_again else layout).moments
        return max(of.bytes_at(moment) for (moment,) in moments[index])

    def needed_bytes(index: int, first: int, last: int) -> int:
        needed = peak_bytes(index, model.stage(first, last))
        if not is_recomputing:
            return needed
        return min(needed, peak_bytes(index, model.stage(first, last, ((first, last),)), True))

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
                place = next((place for place, limit in enumerate(limits) if limit >= needed), None)
                if place is not None:
                    following[last + 1] = min(following.get(last + 1, len(cluster.devices)), device + 1 + place)
        ends = following
    return layers in ends
