"""The same experiment with one thing changed by a factor: its links, the memory of its devices, its minibatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from partition.config import AnyConfig, PlannerConfig
from partition.config.cluster import LARGEST_MEMORY_BYTES
from partition.config.schema import LARGEST_MINIBATCH
from partition.costs import Cluster, CostSource, Device, build_devices
from partition.errors import PartitionError
from partition.plan.candidate import Candidate, rank_loads
from partition.plan.choice import value
from partition.plan.search import Search

LINK_BANDWIDTH, MEMORY, MINIBATCH_SIZE = "link_bandwidth", "memory", "minibatch_size"
QUANTITIES = (LINK_BANDWIDTH, MEMORY, MINIBATCH_SIZE)
FARTHEST = 16.0
"""The factor, and one over it, beyond which nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """An experiment of which one quantity is changed; what its layers cost stays what it was."""

    settings: AnyConfig
    cluster: Cluster
    costs: CostSource

    def search(self, **planner: object) -> Search:
        """A search of it, its planner section narrowed."""
        sizes = self.settings.planner.minibatch_sizes
        smaller = None if sizes is None else tuple(one for one in sizes if one < self.settings.training.minibatch_size)
        changed = self.settings.planner.model_copy(update={"minibatch_sizes": smaller, **planner})
        return Search(self.settings.model_copy(update={"planner": changed}), (self.cluster, self.costs))


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What is changed, and how far."""

    search: Search
    name: str

    @property
    def config(self) -> AnyConfig:
        """The experiment as it is."""
        return self.search.settings

    @property
    def planner(self) -> PlannerConfig:
        """Its planner section."""
        return self.config.planner

    def at(self, factor: float) -> Variation | None:
        """The experiment with the quantity times the factor; None where that leaves nothing to plan."""
        make: dict[str, Callable[[float], Variation]] = {
            LINK_BANDWIDTH: self._bandwidth,
            MEMORY: self._memory,
            MINIBATCH_SIZE: self._minibatch,
        }
        try:
            return make[self.name](factor)
        except PartitionError:  # a GPU with less memory than its driver takes
            return None

    def figure(self, factor: float) -> float | None:
        """The quantity itself at the factor, in base units; None where devices or links differ."""
        if self.name == MINIBATCH_SIZE:
            return self.examples(factor)
        if self.name == MEMORY:
            figures = {reported_bytes(device) for device in self.search.cluster.devices}
            return int(figures.pop() * factor) if len(figures) == 1 else None
        links = self.search.cluster.links
        if links.inter_node is not None or self.is_measured:
            return None
        return links.intra_node.bytes_per_s * factor

    @property
    def is_measured(self) -> bool:
        """Whether links have curves in place of a bandwidth."""
        profile = self.search.cluster.devices[0].profile
        return profile is not None and profile.file.messages is not None

    def examples(self, factor: float) -> int:
        """The minibatch times the factor, in whole microbatches where there are costs of these alone."""
        unit = self.search.costs.microbatch_rows or 1
        count = max(1, round(self.config.training.minibatch_size * factor / unit))
        return unit * min(count, LARGEST_MINIBATCH // unit)

    def least_value(self, candidate: Candidate, factor: float) -> float:
        """What a candidate's value at the factor cannot be below, by what it is at 1."""
        predicted = candidate.predicted
        if predicted is None or (not candidate.feasible and not self._may_come_to_fit(factor)):
            return float("inf")
        now = value(candidate, self.planner.objective)
        if self.name == MINIBATCH_SIZE:
            # Time does not fall as the minibatch grows; examples are not done faster as it shrinks.
            return now * min(1.0, factor)
        return now if factor <= 1 else now * (1 - predicted.bubble_fraction)

    def _may_come_to_fit(self, factor: float) -> bool:
        return factor > 1 if self.name == MEMORY else factor < 1 if self.name == MINIBATCH_SIZE else False

    def _bandwidth(self, factor: float) -> Variation:
        cluster = replace(self.search.cluster, bandwidth_factor=factor)
        return Variation(settings=self.config, cluster=cluster, costs=self.search.costs)

    def _minibatch(self, factor: float) -> Variation:
        training = self.config.training.model_copy(update={"minibatch_size": self.examples(factor)})
        settings: AnyConfig = self.config.model_copy(update={"training": training})
        return Variation(settings=settings, cluster=self.search.cluster, costs=self.search.costs)

    def _memory(self, factor: float) -> Variation:
        settings = with_memory(self.config, self.search.cluster, factor)
        return Variation(settings=settings, cluster=build_devices(settings), costs=self.search.costs)


def reported_bytes(device: Device) -> int:
    """The memory of a device as its experiment states it."""
    return device.memory_bytes if device.room is None else device.room.reported_bytes


def with_memory(config: AnyConfig, cluster: Cluster, factor: float) -> AnyConfig:
    """The experiment with the memory of every device times the factor."""

    def bytes_of(device: Device) -> int:
        return max(1, min(int(reported_bytes(device) * factor), LARGEST_MEMORY_BYTES))

    devices = tuple(
        of.model_copy(update={"memory_bytes": bytes_of(device)})
        for of, device in zip(config.cluster.devices, cluster.devices, strict=True)
    )
    changed: AnyConfig = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})
    return changed


def fits(candidate: Candidate, cluster: Cluster) -> bool:
    """Whether a candidate fits the devices of a cluster on the split that it has."""
    return bool(candidate.stages) and all(
        load.peak_bytes <= cluster.devices[load.stages[0].device_index].memory_bytes
        for load in rank_loads(candidate.stages)
    )
