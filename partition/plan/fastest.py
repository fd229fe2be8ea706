"""The fastest splits, whether or not they fit: of memory nothing is asked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from partition.costs import Cluster, Device, StageCost, StageSource
from partition.plan.constraints import Constraints
from partition.plan.split import Segment, SplitProblem, StageSeconds, optimal_split

if TYPE_CHECKING:
    from partition.plan.layer_sums import Cuts, Floats, Integers, LayerSums

MOST_DEVICE_CHOICES = 200_000
"""Stages times pairs of devices that two of them may be on; of more, the first devices are taken."""


class FastestSplits:
    """The splits of least step of a model over the devices of one replica."""

    def __init__(
        self,
        cluster: Cluster,
        model: StageSource,
        minibatch_size: int,
        sums: LayerSums | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        """`constraints` are of the cluster's devices by position; with pins there are no more of these than stages."""
        self.cluster = cluster
        self.constraints = constraints or Constraints(num_layers=model.num_layers)
        self._sums = sums
        self.model = model
        self.minibatch_size = minibatch_size
        self.num_layers = model.num_layers
        # Neither depends on the schedule, so all of a shape's schedules share them.
        self._seconds = cache(self._stage_seconds)
        self._fastest = cache(self._fastest_split)
        self._fastest_placed = cache(self._fastest_on)
        self._cuts_over = cache(self._cuts_between)
        self._cuts_allowed: dict[int, Cuts] = {}

    def fastest(self, placement: tuple[int, ...], sizes: Sequence[int]) -> tuple[Segment, ...]:
        """The split of least step for stages so placed, whether or not it fits."""
        if placement == tuple(range(len(placement))):
            return self._fastest(len(placement), len(sizes))
        stages_per_rank = len(placement) // (max(placement) + 1)
        return self._fastest_placed(placement, stages_per_rank * (len(sizes) - 1), max(sizes))

    def _fastest_on(self, placement: tuple[int, ...], repeats: int, rows: int) -> tuple[Segment, ...]:
        return on_ranks(self._least_step(placement, len(placement), repeats + 1, rows), placement)

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
        # Of NumPy, for which few verbs should wait.
        from partition.plan.array_search import ArrayProblem
        from partition.plan.array_split import array_split

        spare, runs = len(devices) - num_stages, len(set(self.first_alike))
        if runs > 1 and num_stages * min(spare, runs) ** 2 > MOST_DEVICE_CHOICES:
            devices = tuple(devices)[:num_stages]
        is_in_order = devices == range(len(self.cluster.devices))
        of_places = [self.cluster.devices[device] for device in devices]
        sums = {device.rates: self.sums.of(rows, device) for device in of_places}
        if not all(of.is_increasing for of in sums.values()):
            return self._least_step_of_any(devices, num_stages, num_microbatches, rows)
        kinds = {rates: kind for kind, rates in enumerate(sums)}
        earliest, earliest_of = self._earliest(devices)
        problem = ArrayProblem(
            num_layers=self.num_layers,
            num_stages=num_stages,
            num_microbatches=num_microbatches,
            kinds=tuple(sums.values()),
            kind_of=tuple(kinds[device.rates] for device in of_places),
            cuts=lambda here, there: self._cuts_over(devices[here], devices[there], rows),
            once_s=lambda device, last: self._once_s(0, devices[device], 0, last),
            first_alike=self.first_alike if is_in_order else tuple(range(len(devices))),
            earliest=earliest,
            earliest_of=earliest_of,
        )
        return array_split(problem).segments

    @property
    def first_alike(self) -> tuple[int, ...]:
        """That of the cluster; devices that layers are pinned to are like no others."""
        return tuple(range(len(self.cluster.devices))) if self.constraints.pins else self.cluster.first_alike

    def _earliest(self, devices: Sequence[int]) -> tuple[tuple[Integers, ...], tuple[int, ...]]:
        """Where stages may begin: on each device that layers are pinned to and on all others, and which each one is.

        Nothing where they may anywhere.
        """
        if not self.constraints.pins:
            return (), ()
        import numpy as np

        pinned = self.constraints.pinned_devices
        owners = [device if device in pinned else None for device in devices]
        one_of = dict(zip(owners, devices, strict=True))
        numbers = {owner: number for number, owner in enumerate(one_of)}
        arrays = tuple(np.array(self.constraints.earliest(device), dtype=np.intp) for device in one_of.values())
        return arrays, tuple(numbers[owner] for owner in owners)

    def within_constraints(self, stage_s: StageSeconds, devices: Sequence[int] | None = None) -> StageSeconds:
        """What stages take, infinite where constraints refuse them; `devices` are those of the positions asked for."""
        admits = self.constraints.admits
        if self.constraints.is_free:
            return stage_s

        def seconds(index: int, device: int, first: int, last: int) -> float:
            is_admitted = admits(device if devices is None else devices[device], first, last)
            return stage_s(index, device, first, last) if is_admitted else math.inf

        return seconds

    def _least_step_of_any(
        self, devices: Sequence[int], num_stages: int, num_microbatches: int, rows: int
    ) -> tuple[Segment, ...]:
        """The same where a stage may take less for having a layer more."""
        seconds, of_devices = self._seconds(rows), self._problem(num_stages, num_microbatches, rows)
        split = optimal_split(
            replace(
                of_devices,
                stage_s=self.within_constraints(
                    cache(lambda index, device, first, last: seconds(index, devices[device], first, last)), devices
                ),
                cut_s=cache(lambda here, there, layer: self._cuts(devices[here], devices[there], rows)[layer + 1]),
                once_s=cache(lambda index, device, first, last: self._once_s(index, devices[device], first, last)),
                first_alike=self.first_alike if devices == range(len(self.cluster.devices))
                else tuple(range(len(devices))),
            )
        )  # fmt: skip
        assert split is not None, "a chain with enough layers always has a split"
        return split.segments

    # Costs

    @property
    def sums(self) -> LayerSums:
        """Running sums over the layers, shared by all splitters of a search."""
        if self._sums is None:
            from partition.plan.layer_sums import LayerSums

            self._sums = LayerSums(self.model)
        return self._sums

    def _cuts(self, device: int, following: int, rows: int) -> Floats:
        """Seconds of both messages over a cut between two devices, by the number of layers before it."""
        return self._cuts_over(device, following, rows).seconds

    def _cuts_between(self, device: int, following: int, rows: int) -> Cuts:
        """The cuts between two devices, for ever where constraints allow none; those of all links alike are one."""
        if device == following:
            return self._allowed(self.sums.over_cuts(rows, None, lambda _: 0.0))
        link = self.cluster.link_kind(device, following)
        if link != (device, following):
            return self._cuts_over(*link, rows)
        transfer_s, figures = self.cluster.transfer_s, self.cluster.transfer_figures
        cuts = self.sums.over_cuts(
            rows,
            (figures(device, following), figures(following, device)),
            lambda each: transfer_s(device, following, each) + transfer_s(following, device, each),
        )
        return self._allowed(cuts)

    def _allowed(self, cuts: Cuts) -> Cuts:
        """The seconds of cuts where they are allowed."""
        if self.constraints.is_free:
            return cuts
        if cuts.number not in self._cuts_allowed:
            allowed = cuts.seconds + math.inf
            edges = list(self.constraints.edges)
            allowed[edges] = cuts.seconds[edges]
            self._cuts_allowed[cuts.number] = cuts._replace(seconds=allowed, largest_s=float(allowed.max()))
        return self._cuts_allowed[cuts.number]

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
            stage_s=self.within_constraints(self._seconds(rows)),
            cut_s=cut_s,
            once_s=self._once_s,
            first_alike=self.first_alike,
        )


def work_seconds(stage: StageCost, rows: int, device: Device) -> float:
    """Seconds of forward, recomputation and backward of one microbatch."""
    cost = stage.microbatch(rows)
    again_s = cost.recompute.seconds(device) if stage.has_recomputation else 0.0
    return cost.forward.seconds(device) + again_s + cost.backward.seconds(device)


def on_ranks(segments: Sequence[Segment], placement: Sequence[int]) -> tuple[Segment, ...]:
    """The segments on the devices that the schedule has placed their stages on."""
    return tuple(segment._replace(device=placement[segment.device]) for segment in segments)
