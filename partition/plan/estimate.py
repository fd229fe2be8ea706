"""Price one layout: its schedule is lowered, replayed in time, and its memory taken at every moment of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

from partition.costs import Cluster, CostModel, StageCost
from partition.graph import Category
from partition.plan.candidate import Prediction, StageMemory, StagePlan
from partition.plan.microbatches import short_minibatch_sizes, size_classes
from partition.plan.occupancy import Moment, StageOccupancy, moments
from partition.plan.split import Segment
from partition.schedule import Kind, Replay, ReplayCosts, Schedule, generate, lower, replay

_COMPUTE = {Kind.F: "forward", Kind.B: "backward", Kind.I: "input_grad", Kind.W: "weight_grad"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A schedule of a minibatch over stages, before it is known which layers and device each stage takes."""

    schedule_name: str
    num_stages: int
    sizes: tuple[int, ...]
    """Examples of each microbatch."""

    @staticmethod
    @cache
    def of(schedule_name: str, num_stages: int, sizes: tuple[int, ...]) -> Layout:
        """The layout of these figures, made once."""
        return Layout(schedule_name=schedule_name, num_stages=num_stages, sizes=sizes)

    @property
    def minibatch_size(self) -> int:
        """Examples of a step."""
        return sum(self.sizes)

    @property
    def num_microbatches(self) -> int:
        """Microbatches of a step."""
        return len(self.sizes)

    @cached_property
    def schedule(self) -> Schedule:
        """The lowered schedule, one stage a rank."""
        compute_only = generate(self.schedule_name, num_ranks=self.num_stages, num_microbatches=self.num_microbatches)
        return lower(compute_only)

    def short(self, n: int) -> Layout:
        return Layout.of(self.schedule_name, self.num_stages, short_minibatch_sizes(self.sizes, n))

    @cached_property
    def distinct_sizes(self) -> tuple[int, ...]:
        """The one or two sizes that occur."""
        return size_classes(self.sizes)[0]

    @cached_property
    def size_class(self) -> tuple[int, ...]:
        """For each microbatch the position of its size among the distinct ones."""
        return size_classes(self.sizes)[1]

    @cached_property
    def moments(self) -> tuple[tuple[Moment, ...], ...]:
        """The distinct moments of each stage."""
        last = self.num_stages - 1
        return tuple(
            moments(row, self.size_class, is_first=stage == 0, is_last=stage == last)
            for stage, row in enumerate(self.schedule.rows)
        )

    def occupancy(self, stage: StageCost) -> StageOccupancy:
        """The bytes of a stage under this layout."""
        return StageOccupancy(stage, self.distinct_sizes, self.num_microbatches)


def stage_memory(layout: Layout, stage_index: int, stage: StageCost) -> StageMemory:
    """What the stage's bytes consist of at their peak."""
    parts = layout.occupancy(stage).composition(layout.moments[stage_index])
    return StageMemory(
        **{f"{category}_bytes": parts[category] for category in Category},
        peak_bytes=sum(parts.values()),
    )


def stage_plans(
    layout: Layout, segments: Sequence[Segment], cluster: Cluster, model: CostModel
) -> tuple[StagePlan, ...]:
    """The stages of a layout on the segments of a split."""
    return tuple(
        StagePlan(
            stage_index=index,
            device=cluster.devices[segment.device].name,
            device_index=segment.device,
            rank=index,
            replica_index=0,
            first_layer=segment.first_layer,
            last_layer=segment.last_layer,
            limit_bytes=cluster.devices[segment.device].memory_bytes,
            memory=stage_memory(layout, index, model.stage(segment.first_layer, segment.last_layer)),
        )
        for index, segment in enumerate(segments)
    )


def replay_costs(layout: Layout, segments: Sequence[Segment], cluster: Cluster, model: CostModel) -> ReplayCosts:
    """The seconds of every action of the layout, by stage and microbatch size."""
    costs = [model.stage(segment.first_layer, segment.last_layer) for segment in segments]
    devices = [cluster.devices[segment.device] for segment in segments]
    sizes = layout.distinct_sizes
    seconds = {
        kind: tuple(
            tuple(getattr(cost.microbatch(rows), name).seconds(device) for rows in sizes)
            for cost, device in zip(costs, devices, strict=True)
        )
        for kind, name in _COMPUTE.items()
    }
    seconds[Kind.STEP] = tuple((cost.step.seconds(device),) for cost, device in zip(costs, devices, strict=True))
    hops = list(pairwise(segments))
    forward = [
        tuple(cluster.transfer_s(here.device, there.device, cost.microbatch(rows).output_bytes) for rows in sizes)
        for (here, there), cost in zip(hops, costs, strict=False)
    ]
    backward = [
        tuple(cluster.transfer_s(there.device, here.device, cost.microbatch(rows).grad_input_bytes) for rows in sizes)
        for (here, there), cost in zip(hops, costs[1:], strict=True)
    ]
    nothing = (0.0,) * len(sizes)
    return ReplayCosts(
        size_class=layout.size_class,
        seconds=seconds,
        send_forward_s=(*forward, nothing),
        send_backward_s=(nothing, *backward),
    )


def communication_bytes(layout: Layout, segments: Sequence[Segment], model: CostModel) -> int:
    """Bytes that cross links in one step, in both directions."""
    costs = [model.stage(segment.first_layer, segment.last_layer).microbatch(layout.minibatch_size)
             for segment in segments]  # fmt: skip
    return sum(cost.output_bytes + cost.grad_input_bytes for cost in costs)


def predict(
    layout: Layout, segments: Sequence[Segment], stages: Sequence[StagePlan], cluster: Cluster, model: CostModel
) -> Prediction:
    """Replay the layout and read its figures."""
    result: Replay = replay(layout.schedule, replay_costs(layout, segments, cluster, model))
    step_s, num_devices = result.makespan_s, len(segments)
    busy_s = sum(rank.busy_s for rank in result.ranks)
    return Prediction(
        step_s=step_s,
        samples_per_s=layout.minibatch_size / step_s,
        relative_progress_s=None,
        device_seconds_per_sample=step_s * num_devices / layout.minibatch_size,
        bubble_fraction=max(0.0, 1.0 - busy_s / (step_s * num_devices)),
        communication_bytes=communication_bytes(layout, segments, model),
        peak_bytes=tuple(stage.memory.peak_bytes for stage in stages),
    )
