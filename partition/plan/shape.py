"""What identifies a way to train before it has a layout, and the names of strategies and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from partition.plan.candidate import Candidate, StagePlan
from partition.plan.microbatches import microbatch_sizes
from partition.plan.split import Segment
from partition.schedule import GENERATORS
from partition.schedule.generators import outline

SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv")
SPLIT_SCHEDULES = tuple(name for name in SCHEDULES if GENERATORS[name].splits_backward)
ONE_DEVICE_SCHEDULE = "1f1b"
"""On one rank: F0 B0 F1 B1 ..., one microbatch in flight."""
STRATEGIES = ("whole", "shrink", "accumulate", "recompute", "pipeline", "data_parallel", "hybrid", "sharded")
SHARDED_SCHEDULE = "none"
"""torch's own order of things."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What identifies a candidate before it has a layout."""

    name: str
    strategy: str
    minibatch_size: int
    num_microbatches: int
    num_ranks: int = 1
    """Of one replica."""
    num_stages: int = 1
    """Of one replica."""
    num_replicas: int = 1
    schedule: str = ONE_DEVICE_SCHEDULE

    @staticmethod
    def of(candidate: Candidate) -> Shape:
        """The shape that a candidate was priced for."""
        return Shape(
            name=candidate.name,
            strategy=candidate.strategy,
            minibatch_size=candidate.minibatch_size,
            num_microbatches=candidate.num_microbatches,
            num_ranks=candidate.ranks_per_replica,
            num_stages=candidate.num_stages,
            num_replicas=candidate.num_replicas,
            schedule=candidate.schedule,
        )

    @cached_property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Examples of each microbatch of each replica."""
        shares = microbatch_sizes(self.minibatch_size, self.num_replicas)
        return tuple(microbatch_sizes(share, self.num_microbatches) for share in shares)


def segments_of(stages: Sequence[StagePlan]) -> list[Segment]:
    """The segments of the first replica."""
    return [Segment(stage.device_index, *stage.layers) for stage in stages if stage.replica_index == 0]


@cache
def placement_of(shape: Shape) -> tuple[int, ...]:
    """The rank of each stage of a replica."""
    return outline(
        shape.schedule, num_ranks=shape.num_ranks, num_microbatches=shape.num_microbatches, num_stages=shape.num_stages
    ).placement
