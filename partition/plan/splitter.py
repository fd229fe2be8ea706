"""Which layers each stage takes: the fastest split, or the fastest that fits, or the one that comes closest to fitting.

With one stage a rank the split is optimal for its schedule's `sum + (M - 1) * bottleneck` and exact in memory. Where
ranks hold several stages, it is a good one, not proved the best: every stage is placed by the schedule, and each rank's
work is taken to be as balanced as its stages are. If that does not fit, the split most even in bytes is taken, and if
that does not either, the fastest that does of all splits, where these are few. Then layers are moved over cuts while
that relieves the busiest rank and still fits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import accumulate, combinations, pairwise

from partition.costs import Cluster, Device, StageCost, StageSource
from partition.graph import Spans
from partition.plan.estimate import Layout, Recomputing
from partition.plan.occupancy import StageOccupancy, rank_peak
from partition.plan.peaks import FORMS, Form, StagePeaks
from partition.plan.split import Segment, SplitProblem, StageSeconds, optimal_split

MOST_SPLITS_TRIED = 100
"""Where several stages share a device, so few splits are all tried."""


class Splitter:
    """Finds splits of a model over the devices of one replica."""

    def __init__(self, cluster: Cluster, model: StageSource, minibatch_size: int) -> None:
        self.cluster = cluster
        self.model = model
        self.minibatch_size = minibatch_size
        self.num_layers = model.num_layers
        # Neither depends on the schedule, so all of a shape's schedules share them.
        self._seconds = cache(self._stage_seconds)
        self._fastest = cache(self._fastest_split)
        self._peaks: StagePeaks | None = None

    def splits(self, layout: Layout) -> list[tuple[Segment, ...]]:
        """The segments of every stage, in order: the best split, or two of which only a replay can tell the better."""
        placement = layout.schedule.placement
        if placement == tuple(range(len(placement))):
            return [self._one_stage_a_rank(layout)]
        return self._several_stages_a_rank(layout)

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
        fill = self._fill(layout)
        if all(fill(index, *segment[:3]) <= 1 for index, segment in enumerate(fastest)):
            return fastest
        rows = layout.distinct_sizes[0]
        seconds = self._seconds(rows)

        @cache
        def seconds_if_it_fits(index: int, device: int, first: int, last: int) -> float:
            return seconds(index, device, first, last) if fill(index, device, first, last) <= 1 else math.inf

        problem = self._problem(num_stages, num_microbatches, rows)
        fitting = optimal_split(replace(problem, stage_s=seconds_if_it_fits))
        return fitting.segments if fitting is not None else _closest(replace(problem, stage_s=cache(fill)))

    def _peaks_of(self, layout: Layout) -> StagePeaks:
        """The peaks under a layout: those of the last one are kept, for it is often asked for twice."""
        if self._peaks is None or self._peaks.layout is not layout:
            self._peaks = StagePeaks(layout, layout.occupancy, self.model)
        return self._peaks

    def _fill(self, layout: Layout) -> StageSeconds:
        """The share of its device's memory that a stage takes at its peak."""
        peaks = self._peaks_of(layout)

        def fill(index: int, device: int, first: int, last: int) -> float:
            return peaks.plain(index, first, last) / self.cluster.devices[device].memory_bytes

        return fill

    def _recomputing(self, layout: Layout) -> list[tuple[Segment, ...]]:
        """Of the splits whose stages keep everything where that fits, and else as little as need be, the fastest."""
        num_stages, num_microbatches = layout.schedule.num_stages, layout.num_microbatches
        peaks = self._peaks_of(layout)
        rows, limits = layout.distinct_sizes[0], [device.memory_bytes for device in self.cluster.devices]
        seconds, longer = self._seconds(rows), self._again._seconds(rows)

        def keeps_all(index: int, device: int, first: int, last: int) -> bool:
            return peaks.plain(index, first, last) <= limits[device]

        if all(keeps_all(index, *of[:3]) for index, of in enumerate(self._fastest(num_stages, num_microbatches))):
            return []

        @cache
        def least_s(index: int, device: int, first: int, last: int) -> float:
            if keeps_all(index, device, first, last):
                return seconds(index, device, first, last)
            fits = peaks.recomputing(index, first, last) <= limits[device]
            return longer(index, device, first, last) if fits else math.inf

        split = optimal_split(replace(self._problem(num_stages, num_microbatches, rows), stage_s=least_s))
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
        return Splitter(self.cluster, Recomputing(kept=self.model), self.minibatch_size)

    def _fastest_split(self, num_stages: int, num_microbatches: int) -> tuple[Segment, ...]:
        """The split of least step, whether or not it fits."""
        rows = -(-self.minibatch_size // num_microbatches)
        split = optimal_split(self._problem(num_stages, num_microbatches, rows))
        assert split is not None, "a chain with enough layers always has a split"
        return split.segments

    # Several stages a rank

    def _several_stages_a_rank(self, layout: Layout) -> list[tuple[Segment, ...]]:
        placement, rows = layout.schedule.placement, layout.distinct_sizes[0]
        stages_per_rank = len(placement) // layout.schedule.num_ranks
        of_devices, seconds = self._problem(1, 1, rows), self._seconds(rows)

        def cut_s(device: int, following: int, layer: int) -> float:
            here, there = placement[device], placement[following]
            return 0.0 if here == there else of_devices.cut_s(here, there, layer)

        occupancy = cache(layout.occupancy)

        @cache
        def peak_alone(index: int, stage: StageCost) -> int:
            place = layout.schedule.stages_of(placement[index]).index(index)
            own = dict.fromkeys(moment[place] for moment in layout.moments[placement[index]])
            return max(map(occupancy(stage).bytes_at, own))

        def bytes_alone(index: int, device: int, first: int, last: int) -> float:
            limit_bytes = self.cluster.devices[placement[device]].memory_bytes
            return peak_alone(index, self.model.stage(first, last)) / limit_bytes

        # A device of its own for every stage: which one, the schedule says.
        problem = replace(
            of_devices,
            num_stages=len(placement),
            num_microbatches=stages_per_rank * (layout.num_microbatches - 1) + 1,
            stage_s=cache(lambda index, device, first, last: seconds(index, placement[device], first, last)),
            cut_s=cache(cut_s),
            once_s=cache(lambda index, device, first, last: self._once_s(index, placement[device], first, last)),
            first_alike=tuple(range(len(placement))),
        )
        fastest = optimal_split(problem)
        assert fastest is not None, "a chain with enough layers always has a split"

        def fits(segments: Sequence[Segment]) -> bool:
            return self._overflow_bytes(layout, segments, occupancy) <= 0

        def rank_seconds(segments: Sequence[Segment]) -> list[float]:
            """Of every rank, the busiest first."""
            busy_s = [0.0] * layout.schedule.num_ranks
            for index, segment in enumerate(segments):
                busy_s[placement[index]] += seconds(index, *segment[:3])
            return sorted(busy_s, reverse=True)

        start = _placed(fastest.segments, placement)
        if not fits(start):
            start = _placed(_closest(replace(problem, stage_s=cache(bytes_alone))), placement)
        if not fits(start):
            fitting = filter(fits, few_splits(self.num_layers, placement))
            start = min(fitting, key=rank_seconds, default=start)
        return list(dict.fromkeys((start, _improve(start, rank_seconds, fits)))) if fits(start) else [start]

    def _overflow_bytes(
        self, layout: Layout, segments: Sequence[Segment], occupancy: Callable[[StageCost], StageOccupancy]
    ) -> int:
        """By how much the fullest device is too small."""
        found = []
        for rank in range(layout.schedule.num_ranks):
            own = [segments[stage] for stage in layout.schedule.stages_of(rank)]
            stages = [occupancy(self.model.stage(*of.layers)) for of in own]
            found.append(rank_peak(stages, layout.moments[rank])[0] - self.cluster.devices[own[0].device].memory_bytes)
        return max(found)

    # Costs

    def _stage_seconds(self, rows: int) -> StageSeconds:
        """Seconds of forward, recomputation and backward of one microbatch, whether or not the stage fits its device.

        A stage costs what its layers cost alone and what each pair of neighbours adds (an activation recomputed for
        the weight gradient of the next layer), so two running sums per kind of device price every stage.
        """
        devices, last_layer = self.cluster.devices, self.num_layers - 1

        def both_s(device: Device, first: int, last: int) -> float:
            return work_seconds(self.model.stage(first, last), rows, device)

        def running_sums(device: Device) -> tuple[list[float], list[float]]:
            alone = [both_s(device, layer, layer) for layer in range(last_layer + 1)]
            added = [both_s(device, layer, layer + 1) - alone[layer] - alone[layer + 1] for layer in range(last_layer)]
            return [0.0, *accumulate(alone)], [0.0, *accumulate(added)]

        first_alike = self.cluster.first_alike
        sums = {device: running_sums(devices[device]) for device in set(first_alike)}

        def seconds(index: int, device: int, first: int, last: int) -> float:
            del index
            alone, added = sums[first_alike[device]]
            return alone[last + 1] - alone[first] + added[last] - added[first]

        return seconds

    def _once_s(self, index: int, device: int, first: int, last: int) -> float:
        """The optimizer step of the first stage, which has the last backward of all and so ends last."""
        return self.model.stage(first, last).step.seconds(self.cluster.devices[device]) if index == 0 else 0.0

    def _problem(self, num_stages: int, num_microbatches: int, rows: int) -> SplitProblem:
        @cache
        def cut_s(device: int, following: int, layer: int) -> float:
            num_bytes = self.model.stage(layer, layer).microbatch(rows).output_bytes
            transfer_s = self.cluster.transfer_s(device, following, num_bytes)
            return transfer_s + self.cluster.transfer_s(following, device, num_bytes)

        return SplitProblem(
            num_layers=self.num_layers,
            num_stages=num_stages,
            num_microbatches=num_microbatches,
            stage_s=self._seconds(rows),
            cut_s=cut_s,
            once_s=self._once_s,
            first_alike=self.cluster.first_alike,
        )


def work_seconds(stage: StageCost, rows: int, device: Device) -> float:
    """Seconds of forward, recomputation and backward of one microbatch."""
    cost = stage.microbatch(rows)
    again_s = cost.recompute.seconds(device) if stage.has_recomputation else 0.0
    return cost.forward.seconds(device) + again_s + cost.backward.seconds(device)


def _closest(problem: SplitProblem) -> tuple[Segment, ...]:
    """The split of the least largest `stage_s`, here shares of memory; the least sum of them among equals."""
    # So large a number makes the largest share decide.
    split = optimal_split(replace(problem, cut_s=_no_seconds, once_s=_no_seconds, num_microbatches=10**9))
    assert split is not None, "a chain with enough layers always has a split"
    return split.segments


def _improve(
    segments: tuple[Segment, ...],
    rank_seconds: Callable[[Sequence[Segment]], list[float]],
    fits: Callable[[Sequence[Segment]], bool],
) -> tuple[Segment, ...]:
    """Move layers over cuts, one at a time, while that relieves the busiest rank, or the next one, and still fits."""
    best_s = rank_seconds(segments)
    while True:
        found = [(rank_seconds(moved), moved) for moved in neighbours(segments)]
        better = sorted(pair for pair in found if pair[0] < best_s)
        taken = next((pair for pair in better if fits(pair[1])), None)
        if taken is None:
            return segments
        best_s, segments = taken


def neighbours(segments: Sequence[Segment]) -> Iterator[tuple[Segment, ...]]:
    """The splits with one cut moved by one layer."""
    for index, (before, after) in enumerate(pairwise(segments)):
        for cut in (before.last_layer - 1, before.last_layer + 1):
            if before.first_layer <= cut < after.last_layer:
                moved = (before.covering(before.first_layer, cut), after.covering(cut + 1, after.last_layer))
                yield (*segments[:index], *moved, *segments[index + 2 :])


def _placed(segments: Sequence[Segment], placement: Sequence[int]) -> tuple[Segment, ...]:
    """The segments on the devices that the schedule has placed their stages on."""
    return tuple(segment._replace(device=placement[segment.device]) for segment in segments)


def few_splits(num_layers: int, placement: Sequence[int]) -> list[tuple[Segment, ...]]:
    """Every split over stages placed so, where there are no more than a hundred; else none."""
    num_cuts = len(placement) - 1
    if math.comb(num_layers - 1, num_cuts) > MOST_SPLITS_TRIED:
        return []
    found = []
    for cuts in combinations(range(1, num_layers), num_cuts):
        ends = zip((0, *cuts), (*cuts, num_layers), placement, strict=True)
        found.append(tuple(Segment(rank, first, end - 1) for first, end, rank in ends))
    return found


def _no_seconds(*_: int) -> float:
    return 0.0
