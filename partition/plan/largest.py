"""The largest minibatch that fits, for every way to train: the exact memory of the plan, inverted.

With the number of microbatches held, one example more makes one microbatch larger by one row, and no buffer of any
instant smaller. So what fits is every minibatch up to a largest one, for one split and for the best of all splits
alike, and bisection finds it:

    fits   * * * * * * * * * . . . .
    size   1         ^     ^ ^
               even |   |  one more: what it needs
        microbatches |  the largest
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

from partition.config.model import LARGEST_VALUE_COUNT
from partition.config.schema import LARGEST_MICROBATCH_COUNT, LARGEST_MINIBATCH
from partition.costs import Cluster
from partition.plan.candidate import StagePlan, overflow_bytes, rank_loads
from partition.plan.constraints import Constraints
from partition.plan.few_splits import few_splits
from partition.plan.layout import Layout
from partition.plan.microbatches import microbatch_sizes
from partition.plan.moves import neighbours
from partition.plan.occupancy import StageOccupancy, rank_peak
from partition.plan.orders import on_devices
from partition.plan.recomputation import can_recompute_within
from partition.plan.search import Search
from partition.plan.shape import Shape, segments_of
from partition.plan.split import Segment
from partition.plan.splitter import Splitter
from partition.plan.tightest import some_split_fits
from partition.plan.ways import Way, ways


@dataclass(frozen=True, kw_only=True)
class LargestFit:
    """The largest minibatch of one way to train."""

    strategy: str
    name: str
    """Of the candidate, with `training.minibatch_size` set to this size."""
    num_devices: int
    num_ranks: int
    """Devices of one replica."""
    num_replicas: int
    num_microbatches: int
    """Of each replica."""
    schedule: str
    is_recomputing: bool
    """Whether layers are computed again where that helps."""
    minibatch_size: int
    """0 where not even one example a microbatch fits."""
    microbatch_size: int
    """The largest of its microbatches."""
    stages: tuple[StagePlan, ...]
    """Of that minibatch; empty where nothing fits."""
    one_more: tuple[StagePlan, ...]
    """Of one example more (of the least there is, where nothing fits); empty where no larger minibatch may be asked."""

    @property
    def peak_bytes(self) -> tuple[int, ...]:
        """Of each device, in order of ranks."""
        return tuple(load.peak_bytes for load in rank_loads(self.stages))

    @property
    def limit_bytes(self) -> tuple[int, ...]:
        """Of each device, in order of ranks."""
        return tuple(load.limit_bytes for load in rank_loads(self.stages or self.one_more))

    @property
    def one_more_peak_bytes(self) -> tuple[int, ...]:
        """What each device would need for one example more, on the split that comes closest."""
        return tuple(load.peak_bytes for load in rank_loads(self.one_more))

    @property
    def segments(self) -> list[Segment]:
        """Of the first replica."""
        return segments_of(self.stages)


def largest_fitting(search: Search, num_microbatches: Sequence[int]) -> list[LargestFit]:
    """The largest minibatch of every way that the experiment admits, with each of these numbers of microbatches.

    One pass on one device, accumulation in so many microbatches and in microbatches of one example, pipelines of
    every number of devices and schedule, replicas, and replicas of pipelines. Fully sharded replicas are left out:
    their bytes are estimates; so is recomputation where it does not help. Exact for the best split of stages that keep
    everything or are computed again in either form; with several stages a device, for the best that was found.
    """
    found = [(way, largest_of(search, way)) for way in ways(search, num_microbatches)]
    return [fit for way, fit in found if not _is_needless(way, fit)]


def largest_of(search: Search, way: Way) -> LargestFit:
    """The largest minibatch of one way."""
    return _largest(_Room(search, way))


def _is_needless(way: Way, fit: LargestFit) -> bool:
    """Whether it is another way: nothing is computed again, or the minibatch of one example is one microbatch."""
    if way.is_one_example_each and fit.minibatch_size <= 1:
        return True
    return fit.is_recomputing and not any(stage.recompute for stage in fit.stages)


class _Room:
    """Whether a way fits its devices, on any minibatch."""

    def __init__(self, search: Search, way: Way) -> None:
        self.search = search
        self.way = way
        self.shape = way.shape
        self.cluster = search.replica_cluster(self.shape.num_replicas, self.shape.num_ranks)
        self.orders = search.orders_tried(self.shape)
        self.has_one_stage_a_rank = self.shape.num_stages == self.shape.num_ranks
        self._splits = cache(self._planned_splits)

    @cached_property
    def most(self) -> int:
        """The largest minibatch that an experiment may ask for."""
        features = sum(self.search.config.model.features)
        most = min(LARGEST_MINIBATCH, LARGEST_VALUE_COUNT // features)
        return min(most, LARGEST_MICROBATCH_COUNT) if self.way.is_one_example_each else most

    def fits(self, minibatch_size: int) -> bool:
        """Whether the way fits on some split."""
        shape = self.way.of(minibatch_size)
        if shape.num_ranks == 1:
            return all(self._fits_alone(replica, sizes) for replica, sizes in enumerate(shape.sizes))
        # The first replica has the largest share of the minibatch, and `cluster` the least memory of all replicas.
        sizes = shape.sizes[0]
        if not self.has_one_stage_a_rank:
            return self.split(minibatch_size) is not None
        return any(
            some_split_fits(
                self._like(sizes), sizes, cluster, self.search.model, constraints,
                is_recomputing=self.way.is_recomputing,
            )
            for cluster, constraints in self._clusters_by_memory
        )  # fmt: skip

    @cached_property
    def _clusters_by_memory(self) -> list[tuple[Cluster, Constraints]]:
        """The devices in every order that differs in memory, or in where layers are pinned to."""
        found: dict[object, tuple[Cluster, Constraints]] = {}
        for order in self.orders:
            cluster, constraints = self._arranged(order)
            key = tuple(device.memory_bytes for device in cluster.devices), constraints.pins
            found.setdefault(key, (cluster, constraints))
        return list(found.values())

    def _arranged(self, order: tuple[int, ...] | None) -> tuple[Cluster, Constraints]:
        """The devices in an order, and what has to be honoured there."""
        constraints = self.search.constraints
        if order is None:
            return self.cluster, constraints
        return self.cluster.arranged(order), constraints.on(order)

    def _fits_alone(self, replica: int, sizes: Sequence[int]) -> bool:
        """Whether one device holds the whole network: F0 B0 F1 B1 ..., so one microbatch at a time."""
        alone = Layout.of(self.shape.schedule, 1, sizes[:1])
        whole = self.search.model.stage(0, self.search.network.num_layers - 1)
        occupancy = StageOccupancy(whole, sizes[:1], len(sizes))
        device = self.search.cluster.devices[self.way.device + replica]
        if rank_peak([occupancy], alone.moments[0])[0] <= device.memory_bytes:
            return True
        limit_bytes = device.memory_bytes - sum(whole.static_bytes(len(sizes)).values())
        return self.way.is_recomputing and can_recompute_within(whole, device, sizes[0], limit_bytes)

    def _like(self, sizes: Sequence[int]) -> Layout:
        """A layout whose moments are those of `sizes`: they depend on which microbatches are larger by one."""
        pattern = tuple(size - min(sizes) + 1 for size in sizes)
        shape = self.shape
        return Layout.of(shape.schedule, shape.num_ranks, pattern, shape.num_stages, shape.num_replicas > 1)

    def split(self, minibatch_size: int) -> list[Segment] | None:
        """The planner's split for a minibatch, if it fits; of several orders of devices, the fastest one."""
        if self.orders == (None,):
            return self._first_fitting(self._splits(minibatch_size), minibatch_size)
        fitting = [of for of in self._splits(minibatch_size) if self.fits_on(of, minibatch_size)]
        keeping = [of for of in fitting if not any(segment.recompute for segment in of)] or fitting
        if not keeping:
            return None
        return segments_of(self.search.best_on(self.way.of(minibatch_size), keeping).stages)

    def moved(self, segments: Sequence[Segment], minibatch_size: int) -> list[Segment] | None:
        """The same split with one cut moved by one layer, if that fits."""
        admits = self.search.constraints.admits
        near = neighbours(segments, self.search.constraints.edges)
        allowed = (split for split in near if all(admits(*segment[:3]) for segment in split))
        return self._first_fitting(allowed, minibatch_size)

    def _first_fitting(self, splits: Iterable[Sequence[Segment]], minibatch_size: int) -> list[Segment] | None:
        return next((list(segments) for segments in splits if self.fits_on(segments, minibatch_size)), None)

    def fits_on(self, segments: Sequence[Segment], minibatch_size: int) -> bool:
        """Whether the way fits on one split."""
        return overflow_bytes(self._stages(segments, minibatch_size)) <= 0

    def closest(self, minibatch_size: int, segments: Sequence[Segment] = ()) -> tuple[StagePlan, ...]:
        """The stages on the planner's splits, or on the given one, that lack least of what they need."""
        splits = [*self._splits(minibatch_size), *([segments] if segments else [])]
        return min((self._stages(of, minibatch_size) for of in splits), key=overflow_bytes)

    def _stages(self, segments: Sequence[Segment], minibatch_size: int) -> tuple[StagePlan, ...]:
        return self.search.stages_of(self.way.of(minibatch_size), segments)

    def quickest(self, minibatch_size: int, segments: Sequence[Segment]) -> tuple[int, list[Segment]]:
        """A size and the split that the planner takes for it, where one of those that it looks at fits."""
        is_recomputing = any(of.recompute for of in segments)
        if is_recomputing != self.way.is_recomputing:
            return minibatch_size, list(segments)
        shape = self.way.of(minibatch_size)
        planned = (split for order in self.orders for split in self._in_order(_layout(shape), order))
        alike = (split for split in planned if any(of.recompute for of in split) == is_recomputing)
        fitting = [split for split in alike if self.fits_on(split, minibatch_size)]
        found = segments_of(self.search.best_on(shape, fitting).stages) if fitting else segments
        return minibatch_size, list(found)

    def _planned_splits(self, minibatch_size: int) -> Sequence[Sequence[Segment]]:
        shape = self.way.of(minibatch_size)
        if shape.num_ranks == 1:
            return self._alone(shape)
        layout = _layout(shape)
        planned = [split for order in self.orders for split in self._in_order(layout, order)]
        if self.has_one_stage_a_rank:
            return planned
        orders = self.orders if self.search.constraints.pins else (None,)
        return [*planned, *(split for order in orders for split in self._few_in_order(layout, order))]

    def _few_in_order(self, layout: Layout, order: tuple[int, ...] | None) -> list[tuple[Segment, ...]]:
        """Every split on the devices in one order, where these are few."""
        found = few_splits(self._arranged(order)[1], layout.schedule.placement)
        return found if order is None else [on_devices(split, order) for split in found]

    def _in_order(self, layout: Layout, order: tuple[int, ...] | None) -> list[tuple[Segment, ...]]:
        """The planner's splits on the devices in one order."""
        cluster, constraints = self._arranged(order)
        splitter = Splitter(cluster, self.search.model, layout.minibatch_size, constraints=constraints)
        found = splitter.splits(layout)
        if self.way.is_recomputing:
            found = [*found, *splitter.recomputing_splits(layout)]
        return found if order is None else [on_devices(split, order) for split in found]

    def _alone(self, shape: Shape) -> Sequence[Sequence[Segment]]:
        """All layers on a device, or on that of each replica; computed again where they need be."""
        plain, search = self.search.segment_alone(self.way.device), self.search
        if not self.way.is_recomputing or self.fits_on([plain], shape.minibatch_size):
            return [[plain]]
        devices = range(self.way.device, self.way.device + shape.num_replicas)
        smallest = min(devices, key=lambda index: search.cluster.devices[index].memory_bytes)
        return [[search.recomputing_segment(shape, smallest)._replace(device=self.way.device)]]


def _layout(shape: Shape) -> Layout:
    """Of the first replica, which has the largest share."""
    sizes = shape.sizes[0]
    return Layout.of(shape.schedule, shape.num_ranks, sizes, shape.num_stages, shape.num_replicas > 1)


def _largest(room: _Room) -> LargestFit:
    least = room.way.least
    if least > room.most or not room.fits(least):
        return _found(room, 0, (), room.closest(least) if least <= room.most else ())
    size, segments = _exact(room) if room.has_one_stage_a_rank else room.quickest(*_climb(room))
    one_more = room.closest(size + 1, segments) if size < room.most else ()
    return _found(room, size, room.search.stages_of(room.way.of(size), segments), one_more)


def _exact(room: _Room) -> tuple[int, list[Segment]]:
    """The largest size for which there is a split, and the planner's for it."""
    size = _last(room.fits, room.way.least, room.most)
    segments = room.split(size)
    assert segments is not None, "what fits on some split fits on the planner's"
    return size, segments


def _climb(room: _Room) -> tuple[int, list[Segment]]:
    """From the split of the smallest size to the largest that it takes, on to a split for one example more, and so on.

    In the end neither the split at hand, nor one like it but for a layer, nor the planner's takes one example more.
    """
    size = room.way.least
    segments = room.split(size)
    assert segments is not None, "the smallest size is known to fit"
    while True:
        size = _last(partial(room.fits_on, segments), size, room.most, room.way.least)
        better = (room.split(size + 1) or room.moved(segments, size + 1)) if size < room.most else None
        if better is None:
            return size, segments
        size, segments = size + 1, better


def _last(fits: Callable[[int], bool], low: int, most: int, unit: int = 0) -> int:
    """The last size that fits, from `low`, which does, to `most`; multiples of the unit (`low` if 0) are tried first.

    Those have equal microbatches, and share what is known of their schedule.
    """
    unit = unit or low
    first = low // unit
    high = first + 1
    while high * unit <= most and fits(high * unit):
        first, high = high, 2 * high
    even = _bisect(lambda count: fits(count * unit), first, min(high, most // unit + 1))
    start = max(low, even * unit)
    return _bisect(fits, start, min((even + 1) * unit, most + 1))


def _bisect(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The last number in low..high-1 that fits; `low` is known to, `high` not to or not to be allowed."""
    return low + bisect_left(range(low + 1, high), True, key=lambda size: not fits(size))


def _found(room: _Room, size: int, stages: tuple[StagePlan, ...], one_more: tuple[StagePlan, ...]) -> LargestFit:
    shape = room.way.of(size or room.way.least)
    return LargestFit(
        strategy=shape.strategy,
        name=shape.name,
        num_devices=shape.num_ranks * shape.num_replicas,
        num_ranks=shape.num_ranks,
        num_replicas=shape.num_replicas,
        num_microbatches=shape.num_microbatches,
        schedule=shape.schedule,
        is_recomputing=room.way.is_recomputing,
        minibatch_size=size,
        microbatch_size=microbatch_sizes(shape.minibatch_size, shape.num_replicas * shape.num_microbatches)[0]
        if size
        else 0,
        stages=stages,
        one_more=one_more,
    )
