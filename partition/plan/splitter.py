"""Which layers each stage takes: the fastest split, or the fastest that fits, or the one that comes closest to fitting.

With one stage a rank the split is optimal for its schedule's `sum + (M - 1) * bottleneck` and exact in memory. Where
ranks hold several stages, it is a good one, not proved the best: every stage is placed by the schedule, and each rank's
work is taken to be as balanced as its stages are. If that does not fit, the split most even in bytes is taken, and if
that does not either, one that does is sought from there (`placed_bytes.py`). Then layers are moved over cuts while
that relieves the busiest rank and still fits (`moves.py`), and others as quick are offered beside it
(`near_splits.py`). What needs no memory looked at is in `fastest.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from partition.costs import Cluster, StageCost, StageSource
from partition.graph import Spans
from partition.plan.closest import ABOVE_CLOSEST, closest_split, no_seconds
from partition.plan.constraints import Constraints
from partition.plan.fastest import FastestSplits, on_ranks, work_seconds
from partition.plan.layout import Layout
from partition.plan.moves import MOST_STAGES_IMPROVED, Fits, with_improved
from partition.plan.occupancy import StageOccupancy
from partition.plan.peaks import FORMS, Form, StagePeaks
from partition.plan.placed_bytes import PlacedBytes, fitting_split
from partition.plan.split import Segment, SplitProblem, StageSeconds, optimal_split
from partition.plan.stage_needs import StageNeeds

if TYPE_CHECKING:
    from partition.plan.layer_sums import LayerSums


class Splitter(FastestSplits):
    """Finds splits of a model over the devices of one replica."""

    def __init__(
        self,
        cluster: Cluster,
        model: StageSource,
        minibatch_size: int,
        sums: LayerSums | None = None,
        constraints: Constraints | None = None,
        needs: StageNeeds | None = None,
    ) -> None:
        """As of `FastestSplits`; `needs`: those of the model, where other splitters ask for them too."""
        super().__init__(cluster, model, minibatch_size, sums, constraints)
        self.unlimited = cache(self._unlimited_splits)
        self.needs = needs or StageNeeds(model)

    def splits(self, layout: Layout) -> list[tuple[Segment, ...]]:
        """The segments of every stage, in order: the best split, or two of which only a replay can tell the better."""
        placement = layout.schedule.placement
        if placement == tuple(range(len(placement))):
            return [self._one_stage_a_rank(layout)]
        return self._several_stages_a_rank(layout)

    def _unlimited_splits(self, placement: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[Segment, ...]]:
        """What `splits` gives for any schedule so placed where all stages fit with all microbatches in flight.

        Empty where they might not, and only the schedule can tell.
        """
        surely_fits, doubts = self._surely_fits(sizes), list[Sequence[Segment]]()

        def fits(segments: Sequence[Segment]) -> bool:
            # After one doubt the answer is empty, whatever follows.
            if not doubts and not surely_fits(segments):
                doubts.append(segments)
            return not doubts

        if placement == tuple(range(len(placement))):
            found = [self._fastest(len(placement), len(sizes))]
            fits(found[0])
        else:
            found = self._improved(placement, sizes, max(sizes), fits)
        return [] if doubts else found

    def _surely_fits(self, sizes: Sequence[int]) -> Fits:
        """Whether all stages fit, whatever is in flight."""
        distinct, devices = tuple(sorted(set(sizes))), self.cluster.devices

        @cache
        def most_before() -> list[int]:
            return self.sums.most_bytes(distinct, len(sizes))

        def apart(segments: Sequence[Segment]) -> dict[int, int]:
            """No less than what follows, without a look at what the stages do."""
            before, held = most_before(), dict[int, int]()
            for device, first, last, _ in segments:
                held[device] = held.get(device, 0) + before[last + 1] - before[first]
            return held

        @cache
        def most_bytes(stage: StageCost) -> int:
            return StageOccupancy(stage, distinct, len(sizes)).most_bytes

        def fits(segments: Sequence[Segment]) -> bool:
            doubtful = {device for device, of in apart(segments).items() if of > devices[device].memory_bytes}
            held = dict.fromkeys(doubtful, 0)
            for device, first, last, _ in segments:
                if device in doubtful:
                    held[device] += most_bytes(self.model.stage(first, last))
            return all(of <= devices[device].memory_bytes for device, of in held.items())

        return fits

    def recomputing_splits(self, layout: Layout) -> list[tuple[Segment, ...]]:
        """The segments of splits that recompute, for a layout whose best split does not fit, or is not the fastest.

        With one stage a rank there are none where no stage need recompute, or none fits; else all stages do.
        """
        placement = layout.schedule.placement
        if placement == tuple(range(len(placement))):
            return self._recomputing(layout)
        splits = self._again.splits(layout.recomputing_everywhere)
        return [tuple(segment.recomputing_all() for segment in split) for split in splits]

    # One stage a rank

    def _one_stage_a_rank(self, layout: Layout) -> tuple[Segment, ...]:
        num_stages, num_microbatches = layout.schedule.num_stages, layout.num_microbatches
        fastest = self._fastest(num_stages, num_microbatches)
        if self.unlimited(layout.schedule.placement, layout.sizes):
            return fastest
        fill = self._fill(layout)
        if all(fill(index, *segment[:3]) <= 1 for index, segment in enumerate(fastest)):
            return fastest
        rows = layout.distinct_sizes[0]
        seconds = self._seconds(rows)

        def seconds_if_it_fits(index: int, device: int, first: int, last: int) -> float:
            return seconds(index, device, first, last) if fill(index, device, first, last) <= 1 else math.inf

        problem = self._problem(num_stages, num_microbatches, rows)
        of_fitting = self._shared(problem, layout, "fitting", seconds_if_it_fits)
        fitting = optimal_split(replace(of_fitting, longest=self._longest()))
        if fitting is not None:
            return fitting.segments
        most = self._most_fill(fill, fastest)
        return closest_split(replace(self._shared(problem, layout, ("fill", most), fill), longest=self._longest(most)))

    def _longest(self, most: float = 1.0) -> Callable[[int, int], int]:
        """The last layer of a stage, by (device, first layer), beyond which it fills its device more than that."""
        longest, limits = self.needs.longest, [most * device.memory_bytes for device in self.cluster.devices]
        return lambda device, first: longest(first, limits[device])

    def _most_fill(self, fill: StageSeconds, split: Sequence[Segment]) -> float:
        """What no stage of the split that comes closest fills its device more than, from a split that is at hand.

        Infinite in one of several orders of devices, which share what they find, and from a split that is not allowed.
        """
        if self.cluster.order is not None or not all(self.constraints.admits(*segment[:3]) for segment in split):
            return math.inf
        return max(fill(index, *segment[:3]) for index, segment in enumerate(split)) * ABOVE_CLOSEST

    def _shared(self, problem: SplitProblem, layout: Layout, what: Hashable, stage_s: StageSeconds) -> SplitProblem:
        """A problem with other seconds, which splitters of the same devices in other orders share under the layout."""
        kinds, rows = self._kinds, self.needs.under(layout).rows(what)
        return replace(problem, stage_s=self.within_constraints(stage_s), kinds=kinds, rows=rows)

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        """What tells the stages of devices apart, wherever these stand."""
        of = self.constraints
        pinned = [() if of.is_free else tuple(of.earliest(index)) for index in range(len(self.cluster.devices))]
        figures = zip((device.figures for device in self.cluster.devices), pinned, strict=True)
        return tuple(map(self.needs.kind, figures))

    def _fill(self, layout: Layout) -> StageSeconds:
        """The share of its device's memory that a stage takes at its peak."""
        peaks = self.needs.under(layout).peaks

        def fill(index: int, device: int, first: int, last: int) -> float:
            return peaks.plain(index, first, last) / self.cluster.devices[device].memory_bytes

        return fill

    def _recomputing(self, layout: Layout) -> list[tuple[Segment, ...]]:
        """Of the splits whose stages keep everything where that fits, and else as little as need be, the fastest."""
        num_stages, num_microbatches = layout.schedule.num_stages, layout.num_microbatches
        if self.unlimited(layout.schedule.placement, layout.sizes):
            return []
        peaks = self.needs.under(layout).peaks
        rows, limits = layout.distinct_sizes[0], [device.memory_bytes for device in self.cluster.devices]
        seconds, longer = self._seconds(rows), self._again._seconds(rows)

        def keeps_all(index: int, device: int, first: int, last: int) -> bool:
            return peaks.plain(index, first, last) <= limits[device]

        if all(keeps_all(index, *of[:3]) for index, of in enumerate(self._fastest(num_stages, num_microbatches))):
            return []

        def least_s(index: int, device: int, first: int, last: int) -> float:
            if keeps_all(index, device, first, last):
                return seconds(index, device, first, last)
            fits = peaks.recomputing(index, first, last) <= limits[device]
            return longer(index, device, first, last) if fits else math.inf

        problem = self._problem(num_stages, num_microbatches, rows)
        split = optimal_split(self._shared(problem, layout, "recomputing", least_s))
        if split is None:
            return []
        return [
            tuple(
                of if keeps_all(index, *of[:3]) else of._replace(recompute=self._fewest(peaks, index, of, rows))
                for index, of in enumerate(split.segments)
            )
        ]

    def _fewest(self, peaks: StagePeaks, index: int, segment: Segment, rows: int) -> Spans:
        """The fastest that fits: either form of recomputation, with as many first layers kept as can be."""
        device, (first, last, _) = self.cluster.devices[segment.device], segment.layers
        found: list[tuple[float, Spans]] = []
        for form in FORMS:

            def fits(num_kept: int, form: Form = form) -> bool:
                return peaks.of(index, first, last, form(first + num_kept, last)) <= device.memory_bytes

            if fits(0):
                num_kept = bisect_left(range(1, last - first + 1), True, key=lambda count: not fits(count))
                spans = form(first + num_kept, last)
                found.append((work_seconds(self.model.stage(first, last, spans), rows, device), spans))
        return min(found)[1]

    @cached_property
    def _again(self) -> Splitter:
        """The splits of stages that keep nothing."""
        again = self.needs.again
        return Splitter(self.cluster, again.model, self.minibatch_size, again.sums, self.constraints, again)

    # Several stages a rank

    def _several_stages_a_rank(self, layout: Layout) -> list[tuple[Segment, ...]]:
        placement, rows = layout.schedule.placement, layout.distinct_sizes[0]
        unlimited = self.unlimited(placement, layout.sizes)
        if unlimited:
            return unlimited

        limits = [self.cluster.devices[rank].memory_bytes for rank in range(layout.schedule.num_ranks)]
        placed = PlacedBytes(layout, self.model, limits, self.constraints, self.needs.under(layout).ranks)
        found = self._improved(placement, layout.sizes, rows, placed.fits)
        if found:
            return found

        def fill(index: int, device: int, first: int, last: int) -> float:
            del device  # the schedule says which
            return placed.fill(index, first, last)

        most = self._most_fill(fill, self.fastest(placement, layout.sizes))
        problem = self._placed_problem(layout, self.within_constraints(fill, placement), most)
        start = on_ranks(closest_split(problem), placement)
        is_hopeless = any(placed.fill(index, *of[1:3]) > 1 for index, of in enumerate(start))
        if not is_hopeless and not placed.fits(start) and len(placement) <= MOST_STAGES_IMPROVED:
            start = fitting_split(placed, start) or start
        return self._with_near(start, placement, layout.sizes, rows, placed.fits) if placed.fits(start) else [start]

    def _improved(
        self, placement: Sequence[int], sizes: Sequence[int], rows: int, fits: Fits
    ) -> list[tuple[Segment, ...]]:
        """The fastest split and a better balanced one; nothing where the fastest does not fit."""
        start = self.fastest(tuple(placement), sizes)
        return self._with_near(start, placement, sizes, rows, fits) if fits(start) else []

    def _with_near(
        self, start: tuple[Segment, ...], placement: Sequence[int], sizes: Sequence[int], rows: int, fits: Fits
    ) -> list[tuple[Segment, ...]]:
        """A split, the one that it is improved to, and others that may be as quick."""
        from partition.plan.near_splits import near_splits, steps_of  # of NumPy, for which few verbs should wait

        admits, edges = self.constraints.admits, self.constraints.edges

        def is_allowed(split: Sequence[Segment]) -> bool:
            return all(admits(*segment[:3]) for segment in split) and fits(split)

        fits_so = fits if self.constraints.is_free else is_allowed
        found = with_improved(start, placement, self._seconds(rows), fits_so, edges)
        first_alike, devices = self.cluster.first_alike, self.cluster.devices
        sums = [self.sums.of(rows, devices[first_alike[rank]])[:2] for rank in placement]
        hops = [self._cuts(here, there, rows) for here, there in pairwise(placement)]
        return near_splits(found, edges, steps_of(placement, sums, hops, len(sizes)), fits_so, len(sizes))

    def _placed_problem(self, layout: Layout, stage_s: StageSeconds, most: float) -> SplitProblem:
        """A device of its own for every stage: which one, the schedule says."""
        placement, longest = layout.schedule.placement, self._longest(most)
        return SplitProblem(
            num_layers=self.num_layers,
            num_stages=len(placement),
            num_microbatches=1,
            stage_s=stage_s,
            cut_s=no_seconds,
            once_s=no_seconds,
            first_alike=tuple(range(len(placement))),
            kinds=tuple(self._kinds[rank] for rank in placement),
            rows=self.needs.under(layout).rows(("fill", most)),
            longest=lambda stage, first: longest(placement[stage], first),
        )
