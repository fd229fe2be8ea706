"""Price one layout: its schedule is lowered, replayed in time, and its memory taken at every moment of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from partition.costs import Cluster, CostSource
from partition.plan.candidate import Prediction, StageMemory, StagePlan, rank_loads
from partition.plan.layout import Layout
from partition.plan.split import Segment
from partition.schedule import ReplayCosts, Schedule
from partition.schedule.step_time import StepTime, step_times


def stage_plans(
    layout: Layout, segments: Sequence[Segment], cluster: Cluster, model: CostSource, replica_index: int = 0
) -> tuple[StagePlan, ...]:
    """The stages of one replica's layout on the segments of a split, in order of stages."""
    placement, num_ranks = layout.schedule.placement, layout.schedule.num_ranks
    memory: dict[int, StageMemory] = {}
    for rank in range(num_ranks):
        stages = layout.schedule.stages_of(rank)
        costs = [model.stage(*segments[stage].layers) for stage in stages]
        memory |= dict(zip(stages, layout.rank_memory(rank, tuple(costs)), strict=True))
    return tuple(
        StagePlan(
            stage_index=index,
            device=cluster.devices[segment.device].name,
            device_index=segment.device,
            rank=replica_index * num_ranks + placement[index],
            replica_index=replica_index,
            first_layer=segment.first_layer,
            last_layer=segment.last_layer,
            limit_bytes=cluster.devices[segment.device].memory_bytes,
            memory=memory[index],
            room=cluster.devices[segment.device].room,
            recompute=segment.recompute,
        )
        for index, segment in enumerate(segments)
    )


def communication_bytes(layouts: Sequence[Layout], segments: Sequence[Segment], model: CostSource) -> int:
    """Bytes that cross links in one step: activations and gradients between ranks, sums over replicas around a ring."""
    placement = layouts[0].schedule.placement
    costs = [model.stage(*segment.layers) for segment in segments]
    total = 2 * (len(layouts) - 1) * sum(sum(cost.tensor_bytes) for cost in costs)
    for layout in layouts:
        for rows, count in Counter(layout.sizes).items():
            sizes = pairwise(cost.microbatch(rows) for cost in costs)
            for (here, there), (before, after) in zip(pairwise(placement), sizes, strict=True):
                total += count * (before.output_bytes + after.grad_input_bytes) if here != there else 0
    return total


def replay_step(layouts: Sequence[Layout], costs: Sequence[ReplayCosts], *, has_step_barrier: bool) -> list[StepTime]:
    """What the layouts of all replicas come to, replayed together."""
    pairs = [(layout.schedule, of) for layout, of in zip(layouts, costs, strict=True)]
    distinct, which = _distinct(pairs)
    replayed = step_times(distinct, has_step_barrier=has_step_barrier)
    return [replayed[index] for index in which]


def predict(
    layouts: Sequence[Layout], replicas: Sequence[StepTime], stages: Sequence[StagePlan], communication_bytes: int
) -> Prediction:
    """The figures of a step whose replicas have been replayed."""
    loads = rank_loads(stages)
    step_s = max(of.makespan_s for of in replicas)
    busy_s = sum(rank_s for of in replicas for rank_s in of.busy_s)
    minibatch_size = sum(layout.minibatch_size for layout in layouts)
    return Prediction(
        step_s=step_s,
        samples_per_s=minibatch_size / step_s,
        relative_progress_s=None,
        device_seconds_per_sample=step_s * len(loads) / minibatch_size,
        bubble_fraction=max(0.0, 1.0 - busy_s / (step_s * len(loads))),
        communication_bytes=communication_bytes,
        peak_bytes=tuple(load.peak_bytes for load in loads),
        reserved_bytes=tuple(load.reserved_bytes for load in loads),
        context_bytes=tuple(load.context_bytes for load in loads),
    )


def _distinct(pairs: Sequence[tuple[Schedule, ReplayCosts]]) -> tuple[list[tuple[Schedule, ReplayCosts]], list[int]]:
    """Replicas that do the same at the same cost are at every moment as far as one another: they are replayed once."""
    found: list[tuple[Schedule, ReplayCosts]] = []
    which = []
    for schedule, costs in pairs:
        index = next((at for at, (of, other) in enumerate(found) if of is schedule and other == costs), len(found))
        if index == len(found):
            found.append((schedule, costs))
        which.append(index)
    return found, which
