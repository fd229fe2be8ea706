"""Which layers each stage takes: the fastest split, or the fastest that fits, or the one that comes closest to fitting.

With one stage a rank the split is optimal for its schedule's `sum + (M - 1) * bottleneck` and exact in memory. Where
ranks hold several stages, it is a good one, not proved the best: every stage is placed by the schedule, and each rank's
work is taken to be as balanced as its stages are. If that does not fit, the split most even in bytes is taken, and if
that does not either, one that does is sought from there (`placed_bytes.py`). Then layers are moved over cuts while
that relieves the busiest rank and still fits, and others as quick are offered beside it (`near_splits.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, cmp_to_key
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from partition.costs import Cluster, Device, StageCost, StageSource
from partition.graph import Spans
from partition.plan.estimate import Layout, Recomputing
from partition.plan.occupancy import StageOccupancy
from partition.plan.peaks import FORMS, Form, StagePeaks
from partition.plan.placed_bytes import PlacedBytes, fitting_split
from partition.plan.split import Segment, SplitProblem, StageSeconds, optimal_split

if TYPE_CHECKING:
    from partition.plan.layer_sums import Floats, LayerSums

Fits = Callable[[Sequence[Segment]], bool]
MOST_DEVICE_CHOICES = 200_000
"""Stages times pairs of devices that two of them may be on; of more, the first devices are taken."""
MOST_STAGES_IMPROVED = 64
"""Of more stages, several a device, the split is taken as it is found."""
MOST_SPLITS_TRIED = 100
"""Where several stages share a device, so few splits are all tried."""


class Splitter:
    """Finds splits of a model over the devices of one replica."""

    def __init__(
        self, cluster: Cluster, model: StageSource, minibatch_size: int, sums: LayerSums | None = None
    ) -> None:
        self.cluster = cluster
        self._sums = sums
        self.model = model
        self.minibatch_size = minibatch_size
        self.num_layers = model.num_layers
        # Neither depends on the schedule, so all of a shape's schedules share them.
        self._seconds = cache(self._stage_seconds)
        self._fastest = cache(self._fastest_split)
        self._cuts = cache(self._cut_seconds)
        self.unlimited = cache(self._unlimited_splits)
        self._peaks: StagePeaks | None = None

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

    def fastest(self, placement: tuple[int, ...], sizes: Sequence[int]) -> tuple[Segment, ...]:
        """The split of least step for stages so placed, whether or not it fits."""
        if placement == tuple(range(len(placement))):
            return self._fastest(len(placement), len(sizes))
        stages_per_rank = len(placement) // (max(placement) + 1)
        repeats = stages_per_rank * (len(sizes) - 1)
        return _placed(self._least_step(placement, len(placement), repeats + 1, max(sizes)), placement)

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
        if self.unlimited(layout.schedule.placement, layout.sizes):
            return []
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
        return self._least_step(range(len(self.cluster.devices)), num_stages, num_microbatches, rows)

    def _least_step(
        self, devices: Sequence[int], num_stages: int, num_microbatches: int, rows: int
    ) -> tuple[Segment, ...]:
        """The split of least step on devices in a given order, of which some may stand twice; memory is not looked at.

        The devices of the segments are positions in that order.
        """
        from partition.plan.array_split import ArrayProblem, array_split  # of NumPy, for which few verbs should wait

        spare, runs = len(devices) - num_stages, len(set(self.cluster.first_alike))
        if runs > 1 and num_stages * min(spare, runs) ** 2 > MOST_DEVICE_CHOICES:
            devices = tuple(devices)[:num_stages]
        is_in_order = devices == range(len(self.cluster.devices))
        sums = tuple(self.sums.of(rows, self.cluster.devices[device]) for device in devices)
        if not all(of.is_increasing for of in sums):
            return self._least_step_of_any(devices, num_stages, num_microbatches, rows)
        problem = ArrayProblem(
            num_layers=self.num_layers,
            num_stages=num_stages,
            num_microbatches=num_microbatches,
            sums=sums,
            cut_s=lambda here, there: self._cuts(devices[here], devices[there], rows),
            once_s=lambda device, last: self._once_s(0, devices[device], 0, last),
            first_alike=self.cluster.first_alike if is_in_order else tuple(range(len(devices))),
        )
        return array_split(problem).segments

    def _least_step_of_any(
        self, devices: Sequence[int], num_stages: int, num_microbatches: int, rows: int
    ) -> tuple[Segment, ...]:
        """The same where a stage may take less for having a layer more."""
        seconds, of_devices = self._seconds(rows), self._problem(num_stages, num_microbatches, rows)
        split = optimal_split(
            replace(
                of_devices,
                stage_s=cache(lambda index, device, first, last: seconds(index, devices[device], first, last)),
                cut_s=cache(lambda here, there, layer: self._cuts(devices[here], devices[there], rows)[layer + 1]),
                once_s=cache(lambda index, device, first, last: self._once_s(index, devices[device], first, last)),
                first_alike=of_devices.first_alike if devices == range(len(self.cluster.devices))
                else tuple(range(len(devices))),
            )
        )  # fmt: skip
        assert split is not None, "a chain with enough layers always has a split"
        return split.segments

    @property
    def sums(self) -> LayerSums:
        """Running sums over the layers, shared by all splitters of a search."""
        if self._sums is None:
            from partition.plan.layer_sums import LayerSums

            self._sums = LayerSums(self.model)
        return self._sums

    def _cut_seconds(self, device: int, following: int, rows: int) -> Floats:
        """Seconds of both messages over a cut between two devices, by the number of layers before it."""
        if device == following:
            return self.sums.over_cuts(rows, None, lambda _: 0.0)
        link = self.cluster.link_kind(device, following)
        if link != (device, following):
            return self._cuts(*link, rows)
        transfer_s, figures = self.cluster.transfer_s, self.cluster.transfer_figures
        return self.sums.over_cuts(
            rows,
            (figures(device, following), figures(following, device)),
            lambda each: transfer_s(device, following, each) + transfer_s(following, device, each),
        )

    # Several stages a rank

    def _several_stages_a_rank(self, layout: Layout) -> list[tuple[Segment, ...]]:
        placement, rows = layout.schedule.placement, layout.distinct_sizes[0]
        unlimited = self.unlimited(placement, layout.sizes)
        if unlimited:
            return unlimited

        limits = [self.cluster.devices[rank].memory_bytes for rank in range(layout.schedule.num_ranks)]
        placed = PlacedBytes(layout, self.model, limits)
        found = self._improved(placement, layout.sizes, rows, placed.fits)
        if found:
            return found

        def fill(index: int, device: int, first: int, last: int) -> float:
            del device  # the schedule says which
            return placed.fill(index, first, last)

        start = _placed(_closest(self._placed_problem(placement, fill)), placement)
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

        found = _with_improved(start, placement, self._seconds(rows), fits)
        first_alike, devices = self.cluster.first_alike, self.cluster.devices
        sums = [self.sums.of(rows, devices[first_alike[rank]])[:2] for rank in placement]
        hops = [self._cuts(here, there, rows) for here, there in pairwise(placement)]
        return near_splits(found, self.num_layers, steps_of(placement, sums, hops, len(sizes)), fits, len(sizes))

    def _placed_problem(self, placement: Sequence[int], stage_s: StageSeconds) -> SplitProblem:
        """A device of its own for every stage: which one, the schedule says."""
        return SplitProblem(
            num_layers=self.num_layers,
            num_stages=len(placement),
            num_microbatches=1,
            stage_s=stage_s,
            cut_s=_no_seconds,
            once_s=_no_seconds,
            first_alike=tuple(range(len(placement))),
        )

    # Costs

    def _stage_seconds(self, rows: int) -> StageSeconds:
        """Seconds of forward, recomputation and backward of a microbatch, whether or not the stage fits its device."""
        first_alike, devices = self.cluster.first_alike, self.cluster.devices
        sums = {device: self.sums.of(rows, devices[device]).lists for device in set(first_alike)}

        def seconds(index: int, device: int, first: int, last: int) -> float:
            del index
            ends, starts = sums[first_alike[device]]
            return ends[last + 1] - starts[first]

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


def _with_improved(
    start: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds, fits: Fits
) -> list[tuple[Segment, ...]]:
    """A split and, where it is another, the one that it is improved to."""
    return list(dict.fromkeys((start, _improve(start, placement, seconds, fits))))


def _improve(
    segments: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds, fits: Fits
) -> tuple[Segment, ...]:
    """Move layers over cuts, one at a time, while that relieves the busiest rank, or the next one, and still fits."""
    if len(segments) > MOST_STAGES_IMPROVED:
        return segments
    moves = _Moves(segments, placement, seconds)
    while (better := moves.first_better(fits)) is not None:
        moves.take(better)
    return tuple(moves.segments)


class _Moves:
    """The moves of one layer over a cut, by what they do to the two ranks beside it.

    Of two splits the better one has the less busy busiest rank, of equals the less busy next one, and so on; where two
    ranks change, that is decided by these two, as all others are the same. A move that is taken changes what the moves
    beside its two ranks do, and no other.
    """

    def __init__(self, segments: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds) -> None:
        self.segments, self.placement, self.seconds = list(segments), placement, seconds
        self.stages_of = [[index for index, of in enumerate(placement) if of == rank]
                          for rank in range(max(placement) + 1)]  # fmt: skip
        self.stage_s = [seconds(index, *segment[:3]) for index, segment in enumerate(segments)]
        self.busy_s = [self._busy_s(rank) for rank in range(len(self.stages_of))]
        self.found = [self._at_cut(index) for index in range(len(segments) - 1)]

    def _busy_s(self, rank: int) -> float:
        busy_s = 0.0
        for index in self.stages_of[rank]:
            busy_s += self.stage_s[index]
        return busy_s

    def first_better(self, fits: Fits) -> _Move | None:
        """The best of the better moves whose split fits."""
        best = min(self._most_promising(), key=cmp_to_key(_compare), default=None)
        if best is None or fits(self._moved(best)):
            return best
        moves = sorted((move for of_cut in self.found for move in of_cut), key=cmp_to_key(_compare))
        return next((move for move in moves if fits(self._moved(move))), None)

    def _most_promising(self) -> list[_Move]:
        """The better moves, or those of them that relieve the busiest rank, where there is one: the others do not."""
        busiest_s = max(self.busy_s)
        if self.busy_s.count(busiest_s) == 1:
            cuts = sorted(self._cuts_of(self.busy_s.index(busiest_s)))
            moves = [move for cut in cuts for move in self.found[cut]]
            if any(after[0] < busiest_s for _, after, _, _ in moves):
                return moves
        return [move for of_cut in self.found for move in of_cut]

    def _cuts_of(self, rank: int) -> set[int]:
        """The cuts beside the stages of a rank."""
        return {at for of in self.stages_of[rank] for at in (of - 1, of) if 0 <= at < len(self.segments) - 1}

    def _moved(self, move: _Move) -> tuple[Segment, ...]:
        """The split that a move leads to."""
        index = move[2]
        return (*self.segments[:index], *self._pair(move), *self.segments[index + 2 :])

    def _pair(self, move: _Move) -> tuple[Segment, Segment]:
        """The two stages beside a cut that has moved."""
        _, _, index, cut = move
        return _cut_pair(self.segments[index], self.segments[index + 1], cut)

    def take(self, move: _Move) -> None:
        """Make a move."""
        index, moved = move[2], self._pair(move)
        self.segments[index : index + 2] = moved
        self.stage_s[index : index + 2] = [self.seconds(at, *of[:3]) for at, of in enumerate(moved, start=index)]
        ranks = {self.placement[index], self.placement[index + 1]}
        for rank in ranks:
            self.busy_s[rank] = self._busy_s(rank)
        for cut in set().union(*map(self._cuts_of, ranks)):
            self.found[cut] = self._at_cut(cut)

    def _at_cut(self, index: int) -> list[_Move]:
        """The moves over one cut that make the split better."""
        found: list[_Move] = []
        here, there = self.segments[index], self.segments[index + 1]
        for cut in _moved_cuts(here, there):
            changes_s = (
                self.seconds(index, here.device, here.first_layer, cut) - self.stage_s[index],
                self.seconds(index + 1, there.device, cut + 1, there.last_layer) - self.stage_s[index + 1],
            )
            before, after = self._change(index, *changes_s)
            if after < before:
                found.append((before, after, index, cut))
        return found

    def _change(self, index: int, here_s: float, there_s: float) -> tuple[list[float], list[float]]:
        """What the ranks of two neighbouring stages are busy before a move and after it, the busier one first."""
        rank, other = self.placement[index], self.placement[index + 1]
        busy_s, other_s = self.busy_s[rank], self.busy_s[other]
        if rank == other:
            return [busy_s], [busy_s + here_s + there_s]
        before = [busy_s, other_s] if busy_s >= other_s else [other_s, busy_s]
        busy_s, other_s = busy_s + here_s, other_s + there_s
        return before, [busy_s, other_s] if busy_s >= other_s else [other_s, busy_s]


_Move = tuple[list[float], list[float], int, int]
"""The busy seconds of the two ranks before and after it, the stage before the cut, and where the cut is then."""


def _compare(one: _Move, other: _Move) -> int:
    """Which of two moves leads to the better split: what the one changes counts as it was in the other."""
    ours, theirs = sorted((*one[1], *other[0]), reverse=True), sorted((*other[1], *one[0]), reverse=True)
    return (ours > theirs) - (ours < theirs) or one[2] - other[2]


def _moved_pairs(segments: Sequence[Segment]) -> Iterator[tuple[int, tuple[Segment, Segment]]]:
    """The two stages at a cut that has moved by one layer, after the index of the first."""
    for index, (before, after) in enumerate(pairwise(segments)):
        yield from ((index, _cut_pair(before, after, cut)) for cut in _moved_cuts(before, after))


def _moved_cuts(before: Segment, after: Segment) -> Iterator[int]:
    """The last layers of the first of two stages, one less and one more."""
    for cut in (before.last_layer - 1, before.last_layer + 1):
        if before.first_layer <= cut < after.last_layer:
            yield cut


def _cut_pair(before: Segment, after: Segment, cut: int) -> tuple[Segment, Segment]:
    """Two neighbouring stages with the cut between them after another layer."""
    return before.covering(before.first_layer, cut), after.covering(cut + 1, after.last_layer)


def neighbours(segments: Sequence[Segment]) -> Iterator[tuple[Segment, ...]]:
    """The splits with one cut moved by one layer."""
    for index, moved in _moved_pairs(segments):
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
