"""A schedule written out for microbatches of given sizes, before it is known which layers each stage takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from partition.costs import CostSource, StageCost
from partition.graph import Category
from partition.plan.candidate import StageMemory
from partition.plan.microbatches import short_minibatch_sizes, size_classes
from partition.plan.occupancy import RankMoment, StageOccupancy, rank_moments, rank_peak
from partition.plan.split import Segment
from partition.schedule import Action, Kind, Schedule, generate, lower, with_recomputation
from partition.schedule.actions import NO_MICROBATCH
from partition.schedule.reduction import with_reductions

if TYPE_CHECKING:
    from partition.plan.moment_table import MomentTable

RECEIVES_AHEAD = 2
"""Computations before which a receive is posted: the sender must know of it before it has something to send, or the
message waits for that news, which on slow links queues behind the messages of the other direction."""

MOST_KEPT = 20_000
"""Stages whose bytes are known for other schedules of the same microbatches."""


class Origin(NamedTuple):
    """What a named schedule is generated from; the sizes of its microbatches do not matter."""

    schedule_name: str
    num_ranks: int
    num_microbatches: int
    num_stages: int | None

    @property
    def lowered(self) -> Schedule:
        """The schedule with messages and steps, made once."""
        return _lowered(self)

    @property
    def reduced(self) -> Schedule:
        """The same with sums of gradients over replicas."""
        return _reduced(self)

    def moments(self, size_class: tuple[int, ...]) -> tuple[tuple[RankMoment, ...], ...]:
        """The distinct moments of each rank; sums over replicas change none."""
        return _moments(self, size_class)


@cache
def _lowered(origin: Origin) -> Schedule:
    name, num_ranks, num_microbatches, num_stages = origin
    compute_only = generate(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=num_stages)
    return lower(compute_only, receives_ahead=RECEIVES_AHEAD)


@cache
def _reduced(origin: Origin) -> Schedule:
    return with_reductions(_lowered(origin))


@cache
def _moments(origin: Origin, size_class: tuple[int, ...]) -> tuple[tuple[RankMoment, ...], ...]:
    return _moments_of(origin.lowered, size_class)


def _moments_of(schedule: Schedule, size_class: tuple[int, ...]) -> tuple[tuple[RankMoment, ...], ...]:
    return tuple(rank_moments(row, size_class, schedule) for row in schedule.rows)


@lru_cache(maxsize=MOST_KEPT)
def _occupancy(stage: StageCost, sizes: tuple[int, ...], num_microbatches: int) -> StageOccupancy:
    return StageOccupancy(stage, sizes, num_microbatches)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One replica's part of a step: a lowered schedule, before it is known which layers and device each stage takes."""

    schedule: Schedule
    sizes: tuple[int, ...]
    """Examples of each microbatch."""

    origin: Origin | None = None
    """What the rows were generated from, where they are as generated: the same moments hold of all layouts of one."""

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
        origin = Origin(schedule_name, num_ranks, len(sizes), num_stages)
        return Layout(schedule=origin.reduced if is_reduced else origin.lowered, sizes=sizes, origin=origin)

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
        return self._again(stages) if stages else self

    @cached_property
    def recomputing_everywhere(self) -> Layout:
        """The layout with R in the rows of all stages."""
        return self._again(range(self.schedule.num_stages))

    def _again(self, stages: Sequence[int]) -> Layout:
        return Layout(schedule=with_recomputation(self.schedule, stages), sizes=self.sizes)

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
        return self.origin.moments(self.size_class) if self.origin else _moments_of(self.schedule, self.size_class)

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
        return _occupancy(stage, self.distinct_sizes, self.num_microbatches)


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
