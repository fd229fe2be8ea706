"""Memory against the size of the minibatch and of the microbatch, on the split of one candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from partition.plan.candidate import Candidate, rank_loads
from partition.plan.search import Search
from partition.plan.shape import Shape, segments_of
from partition.plan.sharded import ShardedLayout, sharded_memory

MOST_MICROBATCHES = 512
"""Of a point of a curve: schedules of more take seconds to write out."""
_STEPS_TO_TWICE = 4
"""Points between a size and twice it."""


@dataclass(frozen=True, kw_only=True)
class MemoryPoint:
    """One size on a curve."""

    minibatch_size: int
    microbatch_size: int
    """The largest."""
    num_microbatches: int
    """Of each replica."""
    peak_bytes: tuple[int, ...]
    """Of each device, in order of ranks."""
    fits: bool


@dataclass(frozen=True, kw_only=True)
class MemoryCurve:
    """The memory of a candidate's split where one size changes."""

    candidate: Candidate
    limit_bytes: tuple[int, ...]
    """Of each device, in order of ranks."""
    by_minibatch: tuple[MemoryPoint, ...]
    """With the candidate's number of microbatches."""
    by_microbatch: tuple[MemoryPoint, ...]
    """With the candidate's minibatch in more or fewer microbatches."""


def memory_curve(search: Search, candidate: Candidate) -> MemoryCurve:
    """Minibatches from an eighth to twice the candidate's, and its minibatch in microbatches of one size and another.

    The bytes of a sharded candidate are estimates, and it has no microbatches.
    """
    shape = Shape.of(candidate)
    minibatches = [replace(shape, minibatch_size=size) for size in _minibatches(shape)]
    counted = [replace(shape, num_microbatches=count) for count in _microbatch_counts(shape)]
    return MemoryCurve(
        candidate=candidate,
        limit_bytes=tuple(load.limit_bytes for load in rank_loads(candidate.stages)),
        by_minibatch=_points(search, candidate, minibatches),
        by_microbatch=() if candidate.sharding else _points(search, candidate, counted),
    )


def _points(search: Search, candidate: Candidate, shapes: Iterable[Shape]) -> tuple[MemoryPoint, ...]:
    limits = [load.limit_bytes for load in rank_loads(candidate.stages)]
    found = []
    for shape in shapes:
        peaks = _peaks(search, candidate, shape)
        found.append(
            MemoryPoint(
                minibatch_size=shape.minibatch_size,
                microbatch_size=shape.sizes[0][0],
                num_microbatches=shape.num_microbatches,
                peak_bytes=peaks,
                fits=all(peak <= limit for peak, limit in zip(peaks, limits, strict=True)),
            )
        )
    return tuple(found)


def _peaks(search: Search, candidate: Candidate, shape: Shape) -> tuple[int, ...]:
    """Of every rank."""
    if candidate.sharding:
        layout = ShardedLayout(cluster=search.cluster, model=search.model, num_ranks=shape.num_replicas,
                               minibatch_size=shape.minibatch_size)  # fmt: skip
        return (sharded_memory(layout).peak_bytes,) * shape.num_replicas
    return tuple(load.peak_bytes for load in rank_loads(search.stages_of(shape, segments_of(candidate.stages))))


def _minibatches(shape: Shape) -> list[int]:
    """From an eighth to twice, in a geometric sequence of whole numbers; one example a microbatch at least."""
    least = shape.num_replicas * shape.num_microbatches
    sizes = {round(shape.minibatch_size * 2 ** (step / _STEPS_TO_TWICE)) for step in range(-12, 5)}
    return sorted(size for size in sizes | {shape.minibatch_size} if size >= least)


def _microbatch_counts(shape: Shape) -> list[int]:
    """Those whose largest microbatches are about powers of two, from many small ones to the whole share."""
    share = -(-shape.minibatch_size // shape.num_replicas)
    most = min(shape.minibatch_size // shape.num_replicas, MOST_MICROBATCHES)
    sizes = {1 << power for power in range(share.bit_length())} | {share}
    counts = {-(-share // size) for size in sizes} | {shape.num_microbatches}
    return sorted((count for count in counts if count <= most), reverse=True)
