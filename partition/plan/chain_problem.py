"""A table of layer costs to cut into stages, and the devices that they go to."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from partition.costs import Chain, Cluster, relative_seconds
from partition.errors import PartitionError
from partition.plan.constraints import Constraints
from partition.plan.orders import MOST_ORDERS, Orders, count_orders, device_orders, figures_of, given_order
from partition.plan.pinned_orders import pinned_orders

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

    kinds: tuple[Hashable, ...] = ()
    """What tells the devices apart; empty where they are alike."""
    nodes: tuple[int, ...] = ()
    """Of every device, where links are of two kinds; empty where they are alike."""
    constraints: Constraints | None = None
    """None: every split will do. With pins there are as many places as stages once they are arranged."""

    @property
    def honoured(self) -> Constraints:
        """What every split has to honour, be it nothing."""
        return self.constraints or Constraints(num_layers=len(self.chain.layers))

    @property
    def device_names(self) -> tuple[str, ...]:
        """Of all places, in order."""
        return tuple(place.name for place in self.places)

    def arranged(self, order: Sequence[int]) -> ChainProblem:
        """The same on some of the devices in another order."""
        kinds = [self.kinds[device] for device in order] if self.kinds else list(order)
        return replace(
            self,
            places=tuple(self.places[device] for device in order),
            bytes_per_s=lambda device, following: self.bytes_per_s(order[device], order[following]),
            first_alike=tuple(_first_of_run(kinds, position) for position in range(len(order))),
            kinds=tuple(kinds),
            nodes=tuple(self.nodes[device] for device in order) if self.nodes else (),
            constraints=self.honoured.on(order),
        )

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
    _check_stages(chain, num_stages)  # before there is a place for each
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
        kinds=_kinds(cluster),
        nodes=_nodes(cluster),
    )


def _kinds(cluster: Cluster) -> tuple[Hashable, ...]:
    """Speed, memory and, where links are of two kinds, the node of every device; nothing where figures are alike."""
    figures = [(device.figures, device.memory_bytes) for device in cluster.devices]
    if len(set(figures)) == 1:
        return ()
    return tuple(zip(figures, _nodes(cluster) or (0,) * len(figures), strict=True))


def _nodes(cluster: Cluster) -> tuple[int, ...]:
    per_node = cluster.links.devices_per_node if cluster.links.inter_node else None
    return tuple(index // per_node for index in range(len(cluster.devices))) if per_node else ()


def _first_of_run(kinds: Sequence[Hashable], position: int) -> int:
    while position and kinds[position - 1] == kinds[position]:
        position -= 1
    return position


def _check_stages(chain: Chain, num_stages: int) -> None:
    layers = len(chain.layers)
    if not 1 <= num_stages <= layers:
        raise PartitionError(
            f"{chain.source}: {num_stages} stages of {layers} layers; take 1 to {layers}, a layer at least each"
        )


def _check_bandwidth(bytes_per_s: float) -> None:
    if bytes_per_s < LEAST_BYTES_PER_S:
        raise PartitionError(f"a bandwidth of {bytes_per_s:g} bytes per second is too small; the least is 1")


def orders_of(problem: ChainProblem) -> Orders | None:
    """The orders of devices to try, as many as take a minute of search; None where all devices are alike."""
    layers, stages = len(problem.chain.layers), problem.num_stages
    speeds, memory = [1 / place.slowdown for place in problem.places], [of.limit_bytes or 0 for of in problem.places]
    if problem.honoured.pins:
        kinds = problem.kinds or problem.nodes or (0,) * len(problem.places)
        most = min(MOST_ORDERS, max(1, MOST_WORK // (layers * layers * stages)))
        return pinned_orders(problem.honoured, range(stages), kinds, figures_of(speeds, memory), most)
    if not problem.kinds:
        return None
    if count_orders(problem.kinds, stages) * layers * layers * stages > MOST_WORK:
        return given_order(problem.kinds, stages)
    return device_orders(problem.kinds, stages, speeds, memory)


def check_problem(problem: ChainProblem) -> None:
    """Raise PartitionError for what has no split or takes too long, and memory limits that cannot be kept to."""
    layers, stages, devices = len(problem.chain.layers), problem.num_stages, len(problem.places)
    source = problem.chain.source
    _check_stages(problem.chain, stages)
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
    _check_constraints(problem)
    if any(place.limit_bytes is not None for place in problem.places):
        problem.chain.require_memory("a memory limit")


def _check_constraints(problem: ChainProblem) -> None:
    """Raise PartitionError where no split into so many stages honours the constraints, memory aside."""
    source, of, stages = problem.chain.source, problem.honoured, problem.num_stages
    blocks, needed = len(of.blocks), len(of.pinned_devices)
    if stages > blocks:
        raise PartitionError(
            f"{source}: {stages} stages, but layers kept together leave {blocks} part{'s' * (blocks > 1)}; take at "
            f"most {blocks}"
        )
    if needed > stages:
        raise PartitionError(
            f"{source}: layers are pinned to {needed} devices, {stages} stages are on {stages}; take at least {needed}"
        )
    orders = orders_of(problem)
    if orders is not None and not orders.tried:
        words = replace(of, together=()).in_words(problem.device_names)
        which = "no order" if orders.is_exhaustive else "none of the orders that were tried"
        raise PartitionError(
            f"{source}: {which} of {stages} devices has a split with {words}; pin the layers of a device as one "
            "run, or take another number of stages"
        )
