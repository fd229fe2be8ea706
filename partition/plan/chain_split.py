"""The optimal split of a table of layer costs, with every figure of it.

    bottleneck = max over stages of their forward and backward seconds, over cuts of 2 * activation_bytes / bandwidth
    step       = sum over stages + sum over cuts + (M - 1) * bottleneck

Neither has effects of a schedule, nor the latency of links. Stage i of K keeps min(M, K - i) microbatches, as under
1F1B, and two buffers for each cut beside it: one that arrives and one that leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from partition.costs import Chain, Cluster, relative_seconds
from partition.errors import NothingFitsError, PartitionError
from partition.plan.chain_search import ChainProblem, ChainSearch, ChainTables, Place
from partition.plan.split import least_bottleneck, least_step, segments_of
from partition.units import format_bytes

Objective = Literal["step", "bottleneck"]
MOST_WORK = 2_000_000_000
"""Layers squared times stages times devices that a stage may be on: half a minute of search."""
MOST_MICROBATCHES = 2**30


@dataclass(frozen=True, kw_only=True)
class StageShare:
    """One stage of a split."""

    device: str
    first_layer: int
    last_layer: int
    seconds: float
    """Forward and backward of one microbatch."""
    num_bytes: int | None
    """None where the table has no memory."""
    limit_bytes: int | None
    cut_s: float
    """Of the messages over the cut after it; 0 after the last stage."""


@dataclass(frozen=True, kw_only=True)
class ChainSplit:
    """The stages of a table, proved optimal."""

    stages: tuple[StageShare, ...]
    num_microbatches: int
    objective: Objective

    @property
    def bottleneck_s(self) -> float:
        """The largest seconds of a stage or a cut."""
        return max(max(stage.seconds, stage.cut_s) for stage in self.stages)

    @property
    def step_s(self) -> float:
        """Seconds of a step without schedule effects."""
        once = math.fsum(seconds for stage in self.stages for seconds in (stage.seconds, stage.cut_s))
        return once + (self.num_microbatches - 1) * self.bottleneck_s

    @property
    def lower_bound_s(self) -> float:
        """What no split of so many stages is below, in the objective: it is this one's own value."""
        return self.step_s if self.objective == "step" else self.bottleneck_s

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The first layer of every stage but the first."""
        return tuple(stage.first_layer for stage in self.stages[1:])


def alike_problem(
    chain: Chain,
    num_stages: int,
    num_microbatches: int,
    *,
    bytes_per_s: float = math.inf,
    limit_bytes: int | None = None,
) -> ChainProblem:
    """The problem of as many equal devices as stages."""
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


def split_chain(problem: ChainProblem, objective: Objective) -> ChainSplit:
    """The best split.

    Raises PartitionError for a problem that has none or is too large, NothingFitsError where no split fits.
    """
    _check(problem)
    tables = ChainTables(problem)

    def search(bound: float) -> ChainSearch:
        return ChainSearch(tables, bound)

    repeats = problem.num_microbatches - 1
    state = least_step(search, repeats) if objective == "step" else least_bottleneck(search)
    if state is None:
        raise NothingFitsError(_nothing_fits(problem, tables))
    shares = tuple(_share(problem, index, *segment) for index, segment in enumerate(segments_of(state)))
    following = [*(segment.device for segment in segments_of(state)[1:]), None]
    stages = tuple(
        share if after is None else replace(share, cut_s=_cut_s(problem, segment.device, after, segment.last_layer))
        for share, segment, after in zip(shares, segments_of(state), following, strict=True)
    )
    return ChainSplit(stages=stages, num_microbatches=problem.num_microbatches, objective=objective)


def _check(problem: ChainProblem) -> None:
    layers, stages, devices = len(problem.chain.layers), problem.num_stages, len(problem.places)
    if not 1 <= stages <= layers:
        raise PartitionError(f"{stages} stages of {layers} layers: each takes one layer at least; take 1 to {layers}")
    if stages > devices:
        raise PartitionError(f"{stages} stages, but the cluster has {devices} devices; take {devices} stages or fewer")
    if not 1 <= problem.num_microbatches <= MOST_MICROBATCHES:
        raise PartitionError(f"{problem.num_microbatches} microbatches; take 1 to {MOST_MICROBATCHES:,}")
    spare = len({problem.first_alike[index] for index in range(devices)}) if devices > stages else 1
    work = layers * layers * stages * min(spare, devices - stages + 1)
    if work > MOST_WORK:
        raise PartitionError(
            f"{problem.chain.source}: {layers:,} layers on {stages} stages of {devices} devices are too many to search "
            f"(layers² x stages x kinds of devices is {work:,}, at most {MOST_WORK:,}); join layers, or take "
            "fewer stages"
        )
    if any(place.limit_bytes is not None for place in problem.places):
        problem.chain.require_memory("a memory limit")


def _share(problem: ChainProblem, stage: int, device: int, first: int, last: int) -> StageShare:
    place, layers = problem.places[device], problem.chain.layers[first : last + 1]
    return StageShare(
        device=place.name,
        first_layer=first,
        last_layer=last,
        seconds=math.fsum(seconds for layer in layers for seconds in (layer.forward_s, layer.backward_s))
        * place.slowdown,
        num_bytes=_stage_bytes(problem, stage, first, last) if problem.chain.has_memory else None,
        limit_bytes=place.limit_bytes,
        cut_s=0.0,
    )


def _stage_bytes(problem: ChainProblem, stage: int, first: int, last: int) -> int:
    chain = problem.chain.layers
    layers = chain[first : last + 1]
    static = sum(2 * layer.parameter_bytes + layer.optimizer_bytes for layer in layers)
    saved = sum(layer.saved_bytes or 0 for layer in layers)
    received = chain[first - 1].activation_bytes if first else 0
    sent = layers[-1].activation_bytes if last < len(chain) - 1 else 0
    return static + problem.in_flight(stage) * saved + 2 * (received + sent)


def _cut_s(problem: ChainProblem, device: int, following: int, layer: int) -> float:
    return 2 * problem.chain.layers[layer].activation_bytes / problem.bytes_per_s(device, following)


def _nothing_fits(problem: ChainProblem, tables: ChainTables) -> str:
    """The stage that is fullest on the split that comes closest."""
    closest = least_bottleneck(lambda bound: ChainSearch(tables, bound, of_memory=True))
    assert closest is not None, "a chain with enough layers always has a split"
    shares = [_share(problem, index, *segment) for index, segment in enumerate(segments_of(closest))]
    stage, fullest = max(enumerate(shares), key=lambda pair: (pair[1].num_bytes or 0) / (pair[1].limit_bytes or 1))
    needed, limit = fullest.num_bytes or 0, fullest.limit_bytes or 0
    return (
        f"no split into {problem.num_stages} stages fits: on the one that comes closest stage {stage} (layers "
        f"{fullest.first_layer}-{fullest.last_layer}) needs {format_bytes(needed)} ({needed} bytes), device "
        f"{fullest.device} has {format_bytes(limit)} ({limit} bytes); take more stages, fewer microbatches in flight "
        "or smaller microbatches, or larger devices"
    )
