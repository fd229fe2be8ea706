"""What no candidate of a shape can be below, and with it the best split of many without a price for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain

from partition.config import AnyConfig
from partition.costs import Cluster, CostSource
from partition.plan.candidate import Candidate, by_step, overflow_bytes
from partition.plan.device_splits import DeviceSplits, Split
from partition.plan.shape import SPLIT_SCHEDULES, Shape, placement_of
from partition.plan.split import Segment
from partition.schedule.step_time import StepTime

MOST_SPLITS_PRICED = 2
"""Of one order of devices, of which all are priced; of more, those that bounds leave a chance."""


class ShapeBounds(DeviceSplits):
    """Bounds on the steps of shapes; `bounds.py` has the formulas."""

    def __init__(self, config: AnyConfig, built: tuple[Cluster, CostSource] | None = None) -> None:
        """`built`: devices and costs of this experiment that are there already."""
        super().__init__(config, built)
        self.least_step_s = cache(self._least_step_s)
        self._known_bounds: dict[Shape, dict[Split, float]] = {}

    def _least_step_s(self, shape: Shape) -> float:
        """What no candidate of a shape over several devices can be below, whatever its split."""
        from partition.plan.bounds import any_split_bound_s

        if not self._is_bounded(shape):
            return 0.0
        cluster = self.replica_cluster(shape.num_replicas, shape.num_ranks)
        return any_split_bound_s(
            shape.schedule, placement_of(shape), shape.sizes[-1], cluster, self.costs, self.sums, shape.num_replicas
        )

    def least_step_on_split_s(self, shape: Shape) -> float:
        """The same on the split that the shape would be priced on; 0 where only memory can tell which that is."""
        if not self._is_bounded(shape):
            return 0.0
        placement, sizes = placement_of(shape), shape.sizes[0]
        found = [self._splits(shape, lambda splitter: splitter.unlimited(placement, sizes), (order,))
                 for order in self.orders_tried(shape)]  # fmt: skip
        if not all(found):
            return 0.0
        return min(self._bounds_s(shape, list(chain.from_iterable(found))))

    def _bounds_s(self, shape: Shape, splits: Sequence[Split]) -> list[float]:
        """What the step of a shape on some splits cannot be below; 0 where costs may fall as microbatches grow."""
        if not self._is_bounded(shape):
            return [0.0] * len(splits)
        known = self._known_bounds.setdefault(shape, {})
        unknown: dict[tuple[int, ...], list[Split]] = {}
        for split in dict.fromkeys(splits):
            if split not in known:
                unknown.setdefault(tuple(segment.device for segment in split), []).append(split)
        for alike in unknown.values():
            known |= zip(alike, self._find_bounds_s(shape, alike), strict=True)
        return [known[split] for split in splits]

    def _find_bounds_s(self, shape: Shape, splits: Sequence[Split]) -> list[float]:
        """Of splits over the same devices."""
        from partition.plan.bounds import StepBounds
        from partition.plan.split_figures import SplitFigures

        replicas, splits_backward = shape.num_replicas, shape.schedule in SPLIT_SCHEDULES
        cluster = self.replica_cluster(replicas, shape.num_ranks)
        figures = SplitFigures.of(
            placement_of(shape), shape.sizes[0], splits, cluster, self.sums, replicas, splits_backward=splits_backward
        )
        return StepBounds(schedule=shape.schedule, of=figures).seconds

    def _is_bounded(self, shape: Shape) -> bool:
        """Whether costs are known not to fall as microbatches grow, as measured ones may, or all are of one size."""
        if shape.num_ranks == 1 or self._no_layout(shape):
            return False
        is_measured = self.cluster.devices[0].profile is not None
        return not is_measured or len({size for sizes in shape.sizes for size in sizes}) == 1

    # The best of several splits

    def best_on(self, shape: Shape, splits: Sequence[Sequence[Segment]]) -> Candidate:
        """The fastest candidate of a shape on some splits that fits; where none does, the one that comes closest."""
        if len(splits) <= MOST_SPLITS_PRICED:
            return min((self.price(shape, split) for split in splits), key=by_step)
        overflows = [self._overflow_bytes(shape, split) for split in splits]
        fitting = [split for split, overflow in zip(splits, overflows, strict=True) if overflow <= 0]
        if not fitting:
            return self.price(shape, splits[overflows.index(min(overflows))])
        return self._fastest_on(shape, fitting)

    def _overflow_bytes(self, shape: Shape, split: Sequence[Segment]) -> float:
        """By how much the fullest device is too small for a split."""
        if shape.num_replicas > 1 or any(segment.recompute for segment in split):
            return overflow_bytes(self.stages_of(shape, split))
        layout, devices = self._shapes_layouts(shape)[0], self.cluster.devices
        limits = dict(zip(layout.schedule.placement, (devices[of.device].memory_bytes for of in split), strict=True))
        return max(peak - limits[rank] for rank, peak in enumerate(self._needs.under(layout).ranks.peaks(split)))

    def _fastest_on(self, shape: Shape, splits: Sequence[Sequence[Segment]]) -> Candidate:
        """By bounds, the most promising first: what is bounded above the best that is known is not priced."""
        bounds = self._bounds_s(shape, [tuple(split) for split in splits])
        best: tuple[float, int, list[StepTime]] | None = None
        for place in sorted(range(len(splits)), key=bounds.__getitem__):
            if best is not None and bounds[place] > best[0]:
                break
            replicas = self._step_times(shape, splits[place])
            found = max(of.makespan_s for of in replicas), place, replicas
            best = found if best is None or found[:2] < best[:2] else best
        assert best is not None, "there are splits"
        return self._priced(shape, splits[best[1]], best[2])
