"""Price one layout: its schedule is lowered, replayed in time, and its memory taken at every moment of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from partition.costs import Cluster, CostSource, StageCost, StageSource
from partition.graph import Category, Spans
from partition.plan.candidate import Prediction, StageMemory, StagePlan, rank_loads
from partition.plan.microbatches import short_minibatch_sizes, size_classes
from partition.plan.occupancy import RankMoment, StageOccupancy, rank_moments, rank_peak
from partition.plan.split import Segment
from partition.schedule import Action, Kind, ReplayCosts, Schedule, generate, lower, with_recomputation
from partition.schedule.actions import NO_MICROBATCH
from partition.schedule.reduction import with_reductions
from partition.schedule.step_time import StepTime, step_times

if TYPE_CHECKING:
    from partition.plan.moment_table import MomentTable

RECEIVES_AHEAD = 2
"""Computations before which a receive is posted: the sender must know of it before it has something to send, or the
message waits for that news, which on slow links queues behind the messages of the other direction."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One replica's part of a step: a lowered schedule, before it is known which layers and device each stage takes."""

    schedule: Schedule
    sizes: tuple[int, ...]
    """Examples of each microbatch."""

    @staticmethod
    @cache
    def of(
        schedule_name: str,
        num_ranks: int,
        sizes: tuple[int, ...],
        num_stages: int | None = None,
        is_reduced: bool = False,
    ) -> Layout:
        """The layout of a schedule by name, made once; `is_reduced`: gradients are added over replicas."""
        compute_only = generate(schedule_name, num_ranks=num_ranks, num_microbatches=len(sizes), num_stages=num_stages)
        return Layout.of_schedule(compute_only, sizes, is_reduced=is_reduced)

    @staticmethod
    def of_schedule(compute_only: Schedule, sizes: tuple[int, ...], *, is_reduced: bool = False) -> Layout:
        """The layout of a schedule without messages."""
        lowered = lower(compute_only, receives_ahead=RECEIVES_AHEAD)
        return Layout(schedule=with_reductions(lowered) if is_reduced else lowered, sizes=sizes)

    @property
    def minibatch_size(self) -> int:
        """Examples of a step of this replica."""
        return sum(self.sizes)

    @property
    def num_microbatches(self) -> int:
        """Microbatches of a step."""
        return len(self.sizes)

    def recomputing(self, segments: Sequence[Segment], model: CostSource) -> Layout:
        """The layout with R in the rows of the stages that need it on a split; all else stands where it stood."""
        stages = [index for index, segment in enumerate(segments) if model.stage(*segment.layers).has_recomputation]
        return replace(self, schedule=with_recomputation(self.schedule, stages)) if stages else self

    @cached_property
    def recomputing_everywhere(self) -> Layout:
        """The layout with R in the rows of all stages."""
        return replace(self, schedule=with_recomputation(self.schedule, range(self.schedule.num_stages)))

    def short(self, num_examples: int) -> Layout:
        """What a short minibatch needs: the last microbatches, the first of them cut, in the same rows.

        The rows lose every action of the microbatches that are absent, and each that stays finds in memory a part of
        what it would have found: of what was received, kept, deferred or made, the same microbatches less the absent
        ones, and before every send the same one before it, or none. So a short minibatch needs no more memory than was
        planned, whatever the schedule; and as messages keep their order, it cannot come to a standstill either.
        """
        sizes = short_minibatch_sizes(self.sizes, num_examples)
        absent = self.num_microbatches - len(sizes)

        def kept(row: Sequence[Action]) -> tuple[Action, ...]:
            return tuple(
                action if action.microbatch == NO_MICROBATCH else action._replace(microbatch=action.microbatch - absent)
                for action in row
                if action.microbatch == NO_MICROBATCH or action.microbatch >= absent
            )

        rows = tuple(kept(row) for row in self.schedule.rows)
        return Layout(schedule=replace(self.schedule, rows=rows, num_microbatches=len(sizes)), sizes=sizes)

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """Those of its actions."""
        return frozenset(action.kind for row in self.schedule.rows for action in row)

    @cached_property
    def distinct_sizes(self) -> tuple[int, ...]:
        """The one or two sizes that occur."""
        return size_classes(self.sizes)[0]

    @cached_property
    def size_class(self) -> tuple[int, ...]:
        """For each microbatch the position of its size among the distinct ones."""
        return size_classes(self.sizes)[1]

    @cached_property
    def moments(self) -> tuple[tuple[RankMoment, ...], ...]:
        """The distinct moments of each rank."""
        return tuple(rank_moments(row, self.size_class, self.schedule) for row in self.schedule.rows)

    @cached_property
    def rank_memory(self) -> Callable[[int, tuple[StageCost, ...]], list[StageMemory]]:
        """What a rank holds at its peak, by stage; asked for once for replicas that run the same."""
        return cache(lambda rank, costs: _rank_memory(self, rank, costs))

    @cached_property
    def stage_bytes(self) -> Callable[[int, StageCost], tuple[int, ...]]:
        """What a stage holds at every moment of its rank, whatever the rank's other stages are.

        What is the rank's stands with its first stage.
        """
        placement, occupancy = self.schedule.placement, cache(self.occupancy)
        places = [self.schedule.stages_of(rank).index(stage) for stage, rank in enumerate(placement)]

        @cache
        def stage_bytes(index: int, stage: StageCost) -> tuple[int, ...]:
            table, shared = self.moment_tables[index], stage.shared_bytes if places[index] else 0
            found = table.bytes_of(occupancy(stage)) - shared
            return tuple(found[table.place].tolist())

        return stage_bytes

    @cached_property
    def moment_tables(self) -> tuple[MomentTable, ...]:
        """The moments of every stage, each at the place of its stage among those of its rank."""
        from partition.plan.moment_table import MomentTable  # of NumPy, for which few verbs should wait

        of_ranks = [self.schedule.stages_of(rank) for rank in range(self.schedule.num_ranks)]
        return tuple(
            MomentTable.of(moment[of_ranks[rank].index(stage)] for moment in self.moments[rank])
            for stage, rank in enumerate(self.schedule.placement)
        )

    def occupancy(self, stage: StageCost) -> StageOccupancy:
        """The bytes of a stage under this layout."""
        return StageOccupancy(stage, self.distinct_sizes, self.num_microbatches)


@dataclass(frozen=True, kw_only=True)
class Recomputing:
    """Costs of stages that keep nothing of what they compute."""

    kept: StageSource

    @property
    def num_layers(self) -> int:
        """Layers of the chain."""
        return self.kept.num_layers

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> StageCost:
        """The costs of layers first_layer..last_layer, inclusive, all of which are computed again."""
        assert not recompute, "all layers are computed again"
        return self.kept.stage(first_layer, last_layer, ((first_layer, last_layer),))


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


def _rank_memory(layout: Layout, rank: int, costs: Sequence[StageCost]) -> list[StageMemory]:
    """What the bytes of each stage of a rank consist of when the rank holds most."""
    occupancies = [layout.occupancy(cost) for cost in costs]
    _, moment = rank_peak(occupancies, layout.moments[rank])
    found = []
    for place, (occupancy, own) in enumerate(zip(occupancies, moment, strict=True)):
        parts = occupancy.composition(own)
        # What is the rank's stands with its first stage.
        parts[Category.WORKSPACE] -= occupancy.stage.shared_bytes if place else 0
        named = {f"{category}_bytes": parts[category] for category in Category}
        found.append(StageMemory(**named, peak_bytes=sum(parts.values())))
    return found


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
