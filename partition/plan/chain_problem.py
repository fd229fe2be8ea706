"""A table of layer costs to cut into stages, and the devices that they go to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from partition.costs import Chain, Cluster, relative_seconds
from partition.errors import PartitionError

MOST_FIGURES = 25_000_000
"""Layers squared times different speeds: half a gigabyte."""
MOST_WORK = 2_000_000_000
"""Layers squared times stages times devices that a stage may be on: a minute of search."""
LEAST_BYTES_PER_S = 1.0
MOST_MICROBATCHES = 2**30


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device as a split sees it."""

    name: str
    slowdown: float
    """Seconds over those of the table."""
    limit_bytes: int | None
    """None: memory is not looked at."""


@dataclass(frozen=True, kw_only=True)
class ChainProblem:
    """A table to cut into exactly `num_stages` non-empty stages, on devices in their order."""

    chain: Chain
    num_stages: int
    num_microbatches: int
    places: tuple[Place, ...]
    bytes_per_s: Callable[[int, int], float]
    """Between two devices by index; may be infinite."""
    first_alike: tuple[int, ...]
    """For each device the first of its run of neighbours that are alike, their links too."""

    def in_flight(self, stage: int) -> int:
        """Microbatches that a stage keeps at once under 1F1B."""
        return min(self.num_microbatches, self.num_stages - stage)


def alike_problem(
    chain: Chain,
    num_stages: int,
    num_microbatches: int,
    *,
    bytes_per_s: float = math.inf,
    limit_bytes: int | None = None,
) -> ChainProblem:
    """The problem of as many equal devices as stages."""
    _check_bandwidth(bytes_per_s)
    return ChainProblem(
        chain=chain,
        num_stages=num_stages,
        num_microbatches=num_microbatches,
        places=tuple(Place(name=f"{rank}", slowdown=1.0, limit_bytes=limit_bytes) for rank in range(num_stages)),
        bytes_per_s=lambda *_: bytes_per_s,
        first_alike=(0,) * num_stages,
    )


def cluster_problem(chain: Chain, num_stages: int, num_microbatches: int, cluster: Cluster) -> ChainProblem:
    """The problem of a cluster's devices, in their order; the table's seconds are those of the first one."""
    first, links = cluster.devices[0], cluster.links
    for link in (links.intra_node, links.inter_node):
        _check_bandwidth(math.inf if link is None else link.bytes_per_s)
    return ChainProblem(
        chain=chain,
        num_stages=num_stages,
        num_microbatches=num_microbatches,
        places=tuple(
            Place(name=device.name, slowdown=relative_seconds(first, device), limit_bytes=device.memory_bytes)
            for device in cluster.devices
        ),
        bytes_per_s=lambda device, following: links.between(device, following).bytes_per_s,
        first_alike=cluster.first_alike,
    )


def _check_bandwidth(bytes_per_s: float) -> None:
    if bytes_per_s < LEAST_BYTES_PER_S:
        raise PartitionError(f"a bandwidth of {bytes_per_s:g} bytes per second is too small; the least is 1")


def check_problem(problem: ChainProblem) -> None:
    """Raise PartitionError for what has no split or takes too long, and memory limits that cannot be kept to."""
    layers, stages, devices = len(problem.chain.layers), problem.num_stages, len(problem.places)
    source = problem.chain.source
    if not 1 <= stages <= layers:
        raise PartitionError(f"{source}: {stages} stages of {layers} layers; take 1 to {layers}, a layer at least each")
    if stages > devices:
        raise PartitionError(f"{source}: {stages} stages, but {devices} devices; take at most {devices} stages")
    if not 1 <= problem.num_microbatches <= MOST_MICROBATCHES:
        raise PartitionError(f"{source}: {problem.num_microbatches} microbatches; take 1 to {MOST_MICROBATCHES:,}")
    figures = layers * layers * len({place.slowdown for place in problem.places})
    if figures > MOST_FIGURES:
        raise PartitionError(
            f"{source}: {layers:,} layers are too many to split (layers² x speeds of devices is {figures:,}, at most "
            f"{MOST_FIGURES:,}); join layers"
        )
    kinds = min(len(set(problem.first_alike)), devices - stages + 1)
    work = layers * stages * kinds * (layers + kinds)
    if work > MOST_WORK:
        raise PartitionError(
            f"{source}: {layers:,} layers on {stages} of {devices} devices are too many to search (layers² x stages x "
            f"kinds of devices is {work:,}, at most {MOST_WORK:,}); join layers, or take fewer stages or devices"
        )
    if any(place.limit_bytes is not None for place in problem.places):
        problem.chain.require_memory("a memory limit")
