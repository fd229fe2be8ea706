"""Every way to train an experiment that is considered, each with its best layout, priced."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

from partition.config import ExperimentConfig
from partition.config.schema import LARGEST_MICROBATCH_COUNT
from partition.costs import Cluster, CostModel, Device, StageCost, build_cluster, optimizer_record
from partition.errors import PartitionError
from partition.graph import build_network
from partition.plan.candidate import Candidate, StagePlan
from partition.plan.estimate import Layout, predict, replay_costs, stage_plans
from partition.plan.microbatches import microbatch_sizes
from partition.plan.occupancy import StageOccupancy
from partition.plan.split import Segment, SplitProblem, StageSeconds, optimal_split
from partition.units import format_bytes

SCHEDULES = ("gpipe", "1f1b")
ONE_DEVICE_SCHEDULE = "1f1b"
"""On one rank: F0 B0 F1 B1 ..., one microbatch in flight."""
MOST_MICROBATCHES = 64
"""The largest number of microbatches tried unless the experiment names others."""
MOST_SPLIT_WORK = 1_000_000
"""Layers squared times devices times runs of devices that are alike: ten or twenty seconds of search."""
STRATEGIES = ("whole", "shrink", "accumulate", "pipeline")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What identifies a candidate before it has a layout."""

    name: str
    strategy: str
    minibatch_size: int
    num_microbatches: int
    num_stages: int = 1
    schedule: str = ONE_DEVICE_SCHEDULE

    @property
    def sizes(self) -> tuple[int, ...]:
        """Examples of each microbatch."""
        return microbatch_sizes(self.minibatch_size, self.num_microbatches)


class Search:
    """The candidates of one experiment."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.network = build_network(config.model)
        self.cluster: Cluster = build_cluster(config.cluster, config.precision.compute)
        self.model = CostModel(self.network, optimizer_record(config.optimizer), config.precision.itemsize)
        self.minibatch_size = config.training.minibatch_size
        self._check_size()
        # Neither depends on the schedule, so both of a layout's schedules share them.
        self._seconds = cache(self._stage_seconds)
        self._fastest = cache(self._fastest_split)

    def _check_size(self) -> None:
        """Refuse what makes no sense to search, and what could only be searched in minutes."""
        layers, devices = self.network.num_layers, len(self.cluster.devices)
        admitted = self.config.planner.strategies or STRATEGIES
        work = layers * layers * devices * len(set(self.cluster.first_alike))
        if "pipeline" in admitted and devices > 1 and work > MOST_SPLIT_WORK:
            raise PartitionError(
                f"model and cluster: the splits of {layers} layers over {devices} devices are too many to search "
                f"(layers² x devices x runs of equal devices is {work:,}, at most {MOST_SPLIT_WORK:,}); take fewer "
                "layers or devices, or leave pipeline out of planner.strategies"
            )
        largest = max(self.config.planner.minibatch_sizes or (0,))
        if largest >= self.minibatch_size:
            raise PartitionError(
                f"planner.minibatch_sizes: {largest} is not smaller than training.minibatch_size, "
                f"{self.minibatch_size}; give smaller sizes"
            )

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates that the experiment's planner section admits, in a fixed order."""
        admitted = self.config.planner.strategies or STRATEGIES
        found: list[Candidate] = []
        for device in self._distinct_devices():
            found += [self._on_one_device(shape, device) for shape in self._one_device_shapes(device, admitted)]
        if "pipeline" in admitted:
            found += [self._pipeline(shape) for shape in self._pipeline_shapes()]
        return tuple(found)

    def layouts(self, of: Candidate) -> tuple[Layout, ...]:
        return (Layout.of(of.schedule, of.num_stages, microbatch_sizes(of.minibatch_size, of.num_microbatches)),)

    def costs_of(self, of: Candidate, layout: Layout, replica: int):
        segments = [Segment(stage.device_index, stage.first_layer, stage.last_layer) for stage in of.stages]
        return replay_costs(layout, segments, self.cluster, self.model)

    # One device

    def _distinct_devices(self) -> list[int]:
        """The first device of every kind."""
        first = {device.figures: index for index, device in reversed(list(enumerate(self.cluster.devices)))}
        return sorted(first.values())

    def _one_device_shapes(self, device: int, admitted: Sequence[str]) -> Iterator[Shape]:
        size = self.minibatch_size
        if "whole" in admitted:
            yield Shape(name="whole", strategy="whole", minibatch_size=size, num_microbatches=1)
        if "shrink" in admitted:
            for smaller in self._smaller_minibatches(device):
                yield Shape(name=f"shrink-{smaller}", strategy="shrink", minibatch_size=smaller, num_microbatches=1)
        if "accumulate" in admitted:
            for count in self._accumulations(device):
                yield Shape(name=f"accumulate-{count}", strategy="accumulate", minibatch_size=size,
                            num_microbatches=count)  # fmt: skip

    def _smaller_minibatches(self, device: int) -> list[int]:
        size, asked = self.minibatch_size, self.config.planner.minibatch_sizes
        if asked is not None:
            return list(asked)
        num_fitting = bisect_left(range(1, size + 1), True, key=lambda some: not self._fits_alone(device, some, 1))
        halves = {size >> shift for shift in range(1, 4)}
        return sorted({smaller for smaller in (*halves, max(num_fitting, 1)) if 0 < smaller < size}, reverse=True)

    def _accumulations(self, device: int) -> list[int]:
        size, asked = self.minibatch_size, self.config.planner.num_microbatches
        if asked is not None:
            return [count for count in asked if count > 1]
        fewest = next(
            (count for count in _counts_that_matter(size) if self._fits_alone(device, -(-size // count), count)), 1
        )
        return sorted({*_powers_of_two(size), fewest} - {1})

    def _fits_alone(self, device: int, microbatch_size: int, num_microbatches: int) -> bool:
        """Whether one device holds the whole network and one microbatch at a time."""
        alone = Layout.of(ONE_DEVICE_SCHEDULE, 1, (microbatch_size,))
        whole = self.model.stage(0, self.network.num_layers - 1)
        occupancy = StageOccupancy(whole, (microbatch_size,), num_microbatches)
        return occupancy.peak_bytes(alone.moments[0]) <= self.cluster.devices[device].memory_bytes

    def _on_one_device(self, shape: Shape, device: int) -> Candidate:
        if shape.num_microbatches > shape.minibatch_size:
            return self._without_layout(shape, _too_many_microbatches(shape))
        if len(self._distinct_devices()) > 1:
            shape = replace(shape, name=f"{shape.name}@{self.cluster.devices[device].name}")
        return self.price(shape, [Segment(device, 0, self.network.num_layers - 1)])

    # Several devices

    def _pipeline_shapes(self) -> Iterator[Shape]:
        planner, size = self.config.planner, self.minibatch_size
        for num_stages in planner.num_stages or self._stage_counts():
            if num_stages == 1:  # that is accumulation
                continue
            counts = planner.num_microbatches or self._microbatch_counts(num_stages)
            for count in counts:
                for schedule in planner.schedules or SCHEDULES:
                    name = f"pipeline-{num_stages}x{count}-{schedule}"
                    yield Shape(name=name, strategy="pipeline", minibatch_size=size, num_microbatches=count,
                                num_stages=num_stages, schedule=schedule)  # fmt: skip

    def _microbatch_counts(self, num_stages: int) -> list[int]:
        """Enough to keep every stage busy; fewer only where the minibatch has not as many examples."""
        counts = _powers_of_two(self.minibatch_size)
        return [count for count in counts if count >= num_stages] or counts[-1:]

    def _stage_counts(self) -> list[int]:
        most = min(len(self.cluster.devices), self.network.num_layers)
        return sorted({count for count in (*range(2, 9), *_powers_of_two(most), most) if 2 <= count <= most})

    def _pipeline(self, shape: Shape) -> Candidate:
        reason = self._no_layout(shape)
        if reason:
            return self._without_layout(shape, reason)
        layout = Layout.of(shape.schedule, shape.num_stages, shape.sizes)
        return self.price(shape, self._split(layout))

    def _split(self, layout: Layout) -> tuple[Segment, ...]:
        """The fastest split that fits, or the one that comes closest to fitting where none does."""
        fastest = self._fastest(layout.num_stages, layout.num_microbatches)
        # Stages of equal layers share their costs, and a stage its occupancy at every position.
        occupancy = cache(layout.occupancy)

        @cache
        def peak_bytes(index: int, stage: StageCost) -> int:
            return occupancy(stage).peak_bytes(layout.moments[index])

        def fill(index: int, device: int, first: int, last: int) -> float:
            return peak_bytes(index, self.model.stage(first, last)) / self.cluster.devices[device].memory_bytes

        if all(fill(index, *segment) <= 1 for index, segment in enumerate(fastest)):
            return fastest
        rows = layout.distinct_sizes[0]
        seconds = self._seconds(rows)

        @cache
        def seconds_if_it_fits(index: int, device: int, first: int, last: int) -> float:
            return seconds(index, device, first, last) if fill(index, device, first, last) <= 1 else math.inf

        problem = self._split_problem(layout.num_stages, layout.num_microbatches, rows)
        fitting = optimal_split(replace(problem, stage_s=seconds_if_it_fits))
        if fitting is not None:
            return fitting.segments
        # So large a number makes the largest fill decide, and the sum of all fills among equals only.
        closest = replace(problem, stage_s=cache(fill), cut_s=_no_seconds, once_s=_no_seconds, num_microbatches=10**9)
        split = optimal_split(closest)
        assert split is not None, "a chain with enough layers always has a split"
        return split.segments

    def _no_layout(self, shape: Shape) -> str:
        layers, devices = self.network.num_layers, len(self.cluster.devices)
        if shape.num_stages > layers:
            return f"{shape.num_stages} stages, but the network has {layers} layers; take num_stages <= {layers}"
        if shape.num_stages > devices:
            return f"{shape.num_stages} stages, but there are {devices} devices; take num_stages <= {devices}"
        return _too_many_microbatches(shape) if shape.num_microbatches > shape.minibatch_size else ""

    def _fastest_split(self, num_stages: int, num_microbatches: int) -> tuple[Segment, ...]:
        """The split of least step, whether or not it fits."""
        rows = -(-self.minibatch_size // num_microbatches)
        split = optimal_split(self._split_problem(num_stages, num_microbatches, rows))
        assert split is not None, "a chain with enough layers always has a split"
        return split.segments

    def _stage_seconds(self, rows: int) -> StageSeconds:
        """Seconds of forward and backward of one microbatch, whether or not the stage fits its device.

        A stage costs what its layers cost alone and what each pair of neighbours adds (an activation recomputed for
        the weight gradient of the next layer), so two running sums per kind of device price every stage.
        """
        devices, last_layer = self.cluster.devices, self.network.num_layers - 1

        def both_s(device: Device, first: int, last: int) -> float:
            cost = self.model.stage(first, last).microbatch(rows)
            return cost.forward.seconds(device) + cost.backward.seconds(device)

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

    def _split_problem(self, num_stages: int, num_microbatches: int, rows: int) -> SplitProblem:
        @cache
        def cut_s(device: int, following: int, layer: int) -> float:
            num_bytes = self.model.stage(layer, layer).microbatch(rows).output_bytes
            transfer_s = self.cluster.transfer_s(device, following, num_bytes)
            return transfer_s + self.cluster.transfer_s(following, device, num_bytes)

        return SplitProblem(
            num_layers=self.network.num_layers,
            num_stages=num_stages,
            num_microbatches=num_microbatches,
            stage_s=self._seconds(rows),
            cut_s=cut_s,
            once_s=self._once_s,
            first_alike=self.cluster.first_alike,
        )

    # Any layout

    def price(self, shape: Shape, segments: Sequence[Segment]) -> Candidate:
        """The candidate of a shape on given segments."""
        layout = Layout.of(shape.schedule, shape.num_stages, shape.sizes)
        stages = stage_plans(layout, segments, self.cluster, self.model)
        candidate = self._without_layout(shape, "")
        overflow = _overflow(stages)
        return replace(
            candidate,
            feasible=not overflow,
            reason=overflow or _fit(stages),
            stages=stages,
            predicted=predict(layout, segments, stages, self.cluster, self.model),
        )

    def _without_layout(self, shape: Shape, reason: str) -> Candidate:
        is_exact = shape.minibatch_size == self.minibatch_size
        return Candidate(
            name=shape.name,
            strategy=shape.strategy,
            feasible=False,
            reason=reason,
            exact_gradient=is_exact,
            bit_identical=is_exact,
            num_devices=shape.num_stages,
            num_stages=shape.num_stages,
            num_replicas=1,
            minibatch_size=shape.minibatch_size,
            microbatch_size=-(-shape.minibatch_size // shape.num_microbatches),
            num_microbatches=shape.num_microbatches,
            schedule=shape.schedule,
            recompute=False,
            sharding=None,
            learning_rate=self._learning_rate(shape.minibatch_size),
            cost_source=self.cluster.cost_source,
            stages=(),
            predicted=None,
        )

    def _learning_rate(self, minibatch_size: int) -> float:
        """Linear in the minibatch for SGD (Goyal et al. 2017), its square root for Adam (Malladi et al. 2022)."""
        ratio = minibatch_size / self.minibatch_size
        lr = self.config.optimizer.lr
        return lr * ratio if self.config.optimizer.name == "sgd" else lr * math.sqrt(ratio)


def _counts_that_matter(size: int) -> Iterator[int]:
    """Numbers of microbatches in increasing order, each the least for its largest microbatch.

    Whether they fit is not monotone: more microbatches are smaller, but each has a loss to be kept.
    """
    count = 1
    while count <= min(size, LARGEST_MICROBATCH_COUNT):
        yield count
        largest = -(-size // count)
        if largest == 1:
            return
        count = -(-size // (largest - 1))


def _no_seconds(*_: int) -> float:
    return 0.0


def _overflow(stages: Sequence[StagePlan]) -> str:
    """Which device is too small for its stage, and by how much; nothing where all fit."""
    fullest = max(stages, key=lambda stage: stage.memory.peak_bytes - stage.limit_bytes)
    too_much = fullest.memory.peak_bytes - fullest.limit_bytes
    if too_much <= 0:
        return ""
    needs = (
        f"needs {format_bytes(fullest.memory.peak_bytes)}, {fullest.device} has {format_bytes(fullest.limit_bytes)} "
        f"({format_bytes(too_much)} too much)"
    )
    if len(stages) == 1:
        return needs
    layers = f"layer {fullest.first_layer}"
    if fullest.last_layer > fullest.first_layer:
        layers = f"layers {fullest.first_layer}-{fullest.last_layer}"
    return f"stage {fullest.stage_index} ({layers}) {needs}, on the split that comes closest"


def _fit(stages: Sequence[StagePlan]) -> str:
    fullest = max(stages, key=lambda stage: stage.memory.peak_bytes / stage.limit_bytes)
    peak, limit = format_bytes(fullest.memory.peak_bytes), format_bytes(fullest.limit_bytes)
    return f"fits: at most {peak} of {limit}, on {fullest.device}"


def _too_many_microbatches(shape: Shape) -> str:
    return (
        f"{shape.num_microbatches} microbatches, but the minibatch has {shape.minibatch_size} examples; "
        f"take num_microbatches <= {shape.minibatch_size}"
    )


def _powers_of_two(limit: int) -> list[int]:
    limit = min(limit, MOST_MICROBATCHES)
    return [1 << shift for shift in range(limit.bit_length()) if 1 << shift <= limit]
