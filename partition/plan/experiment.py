"""An experiment as the planner sees it: its devices, its costs, its sizes, and what of it can be priced."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from partition.config import AnyConfig, ExperimentConfig
from partition.costs import ChainCosts, Cluster, CostModel, CostSource, build_costs, read_noise
from partition.errors import PartitionError
from partition.graph import Network
from partition.plan.asked_constraints import Known, constraints_of
from partition.plan.candidate import Candidate
from partition.plan.progress import learning_rate_rule
from partition.plan.shape import SPLIT_SCHEDULES, STRATEGIES
from partition.plan.sizes import AnySizes, Sizes, WholeMicrobatches
from partition.plan.stage_needs import held_throughout
from partition.plan.tightest import may_hold

if TYPE_CHECKING:
    from partition.plan.layer_sums import LayerSums

MOST_FIGURES = 10_000
"""Layers times devices of a search that finds the best of every kind."""


class Experiment:
    """What is asked of an experiment, whichever way to train it is looked at."""

    def __init__(self, config: AnyConfig, built: tuple[Cluster, CostSource] | None = None) -> None:
        """`built`: devices and costs of this experiment that are there already."""
        self.settings = config
        self.cluster, self.costs = built or build_costs(config)
        self.replica_cluster = cache(self._replica_cluster)
        self.noise = None if config.planner.noise is None else read_noise(config.planner.noise)
        self._learning_rate = learning_rate_rule(config, self.noise)
        self.minibatch_size = config.training.minibatch_size
        self._sizes = self._make_sizes()
        self._admitted = config.planner.strategies or STRATEGIES
        self._check_sizes()
        for schedule in config.planner.schedules or ():
            self._check_schedule(schedule)
        self._most_memory = cache(self._most_memory_of)
        self.may_hold = cache(self._may_hold_of)
        """Whether the largest so many devices have room for what layers hold throughout; else nothing fits."""
        self.constraints = constraints_of(config.planner, self._known)

    @property
    def config(self) -> ExperimentConfig:
        """The experiment; raises PartitionError for one that can only be planned."""
        if not isinstance(self.settings, ExperimentConfig):
            raise PartitionError(f"{self.settings.model.costs}: is a table of costs, there is no network to run")
        return self.settings

    @property
    def model(self) -> CostModel:
        """The costs of the network; raises PartitionError where there is none."""
        if not isinstance(self.costs, CostModel):
            raise PartitionError(f"{self.costs.origin(self.cluster)} has no network to run")
        return self.costs

    @property
    def network(self) -> Network:
        """The network; raises PartitionError where there is none."""
        return self.model.network

    # What can be priced

    @property
    def has_step_barrier(self) -> bool:
        """Whether all ranks begin their optimizer step together, as the gradients' norm is limited."""
        return isinstance(self.settings, ExperimentConfig) and self.settings.optimizer.max_grad_norm is not None

    @property
    def is_recomputing(self) -> bool:
        """Whether recomputation is to be considered, and can be priced."""
        return "recompute" in self._admitted and self.costs.can_recompute

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the costs cannot price."""
        without_halves = () if self.costs.splits_backward else tuple(SPLIT_SCHEDULES)
        without_layers = () if isinstance(self.costs, CostModel) else ("sharded parameters", "recomputation")
        reason = f", which {self.costs.origin(self.cluster)} cannot price"
        whole = "recomputation on one device, or on each of several, in a network of so many layers on so many devices"
        is_mixed = isinstance(self.costs, CostModel) and self.costs.is_mixed
        return (
            *(f"{what}{reason}" for what in (*without_halves, *without_layers)),
            *(("sharded parameters in bfloat16",) if is_mixed else ()),
            *((whole,) if self.is_recomputing and not self._recomputes_whole else ()),
        )

    @property
    def _recomputes_whole(self) -> bool:
        """Whether the layers to be computed again are sought for a device that has all of them: of many in minutes."""
        asked = self.settings.planner.strategies or ()
        return not self.is_large or ("recompute" in asked and len(asked) == 1)

    @property
    def _shards(self) -> bool:
        """Whether sharded parameters can be priced and trained: they take one number format."""
        return isinstance(self.costs, CostModel) and not self.costs.is_mixed

    def _make_sizes(self) -> Sizes:
        rows, planner = self.costs.microbatch_rows, self.settings.planner
        if rows is None:
            return AnySizes(self.minibatch_size, planner)
        return WholeMicrobatches(self.minibatch_size, planner, rows)

    def _check_schedule(self, schedule: str) -> None:
        """Refuse a schedule whose actions have no costs."""
        if schedule in SPLIT_SCHEDULES and not self.costs.splits_backward:
            raise PartitionError(
                f"planner.schedules: {schedule} splits the backward, {self.costs.origin(self.cluster)} does not; add "
                "the columns input_grad_s and weight_grad_s, or take another schedule"
            )

    def _check_sizes(self) -> None:
        """Refuse smaller minibatches that are not smaller."""
        largest = max(self.settings.planner.minibatch_sizes or (0,))
        if largest >= self.minibatch_size:
            raise PartitionError(
                f"planner.minibatch_sizes: {largest} is not smaller than training.minibatch_size, "
                f"{self.minibatch_size}; give smaller sizes"
            )

    # Devices and layers

    @property
    def device_names(self) -> tuple[str, ...]:
        """Of all devices, in order."""
        return tuple(device.name for device in self.cluster.devices)

    @property
    def _known(self) -> Known:
        """What constraints may name."""
        names = tuple(layer.name for layer in self.costs.chain.layers) if isinstance(self.costs, ChainCosts) else ()
        return Known(num_layers=self.costs.num_layers, layer_names=names, device_names=self.device_names)

    def broken_by(self, candidate: Candidate) -> str:
        """What of the constraints a candidate breaks, which every one that is priced here honours; empty where none."""
        stages = [(stage.device_index, stage.first_layer, stage.last_layer) for stage in candidate.stages]
        return self.constraints.broken_by(stages, self.device_names)

    def distinct_devices(self) -> list[int]:
        """A device of every kind: the first one that layers are pinned to, else the first."""
        pinned = self.constraints.pinned_devices
        order = [*pinned, *(index for index in range(len(self.cluster.devices)) if index not in pinned)]
        first = {self.cluster.devices[index].figures: index for index in reversed(order)}
        return sorted(first.values())

    @cached_property
    def has_unlike_devices(self) -> bool:
        """Whether it matters which device takes which stage."""
        return self.has_unlike_kinds or bool(self.constraints.pins)

    @cached_property
    def has_unlike_kinds(self) -> bool:
        """Whether devices differ in their figures."""
        return len({device.figures for device in self.cluster.devices}) > 1

    def has_like_replicas(self, num_replicas: int, num_ranks: int) -> bool:
        """Whether every replica has the same kinds of devices at its positions, as far as there are devices."""
        figures = [device.figures for device in self.cluster.devices[: num_replicas * num_ranks]]
        return all(one == figures[index % num_ranks] for index, one in enumerate(figures))

    def _replica_cluster(self, num_replicas: int, num_ranks: int) -> Cluster:
        """The devices that any replica has: of each position the least memory and the slowest rates of all."""
        if num_replicas == 1:
            return self.cluster
        devices = self.cluster.devices
        columns = [[devices[replica * num_ranks + position] for replica in range(num_replicas)]
                   for position in range(num_ranks)]  # fmt: skip
        least = tuple(
            replace(
                column[0],
                memory_bytes=min(device.memory_bytes for device in column),
                flop_per_s=min(device.flop_per_s for device in column),
                memory_bytes_per_s=min(device.memory_bytes_per_s for device in column),
            )
            for column in columns
        )
        return replace(self.cluster, devices=least)

    @cached_property
    def sums(self) -> LayerSums:
        """Running sums over the layers."""
        from partition.plan.layer_sums import LayerSums  # of NumPy, for which few verbs should wait

        return LayerSums(self.costs)

    @property
    def is_large(self) -> bool:
        """Whether only the first candidates of all are sought, not the best of every kind."""
        return self.costs.num_layers * len(self.cluster.devices) > MOST_FIGURES

    @cached_property
    def static_bytes(self) -> int:
        """What all layers hold throughout, whatever the split."""
        return held_throughout(self.costs, 0, self.costs.num_layers - 1)

    def _may_hold_of(self, num_devices: int) -> bool:
        limits = sorted((device.memory_bytes for device in self.cluster.devices), reverse=True)[:num_devices]
        return may_hold(self._held_bytes, limits)

    @cached_property
    def _held_bytes(self) -> list[int]:
        """What each layer holds throughout."""
        return [held_throughout(self.costs, layer, layer) for layer in range(self.costs.num_layers)]

    def _most_memory_of(self, num_devices: int) -> int:
        """What the largest so many devices have together."""
        return sum(sorted((device.memory_bytes for device in self.cluster.devices), reverse=True)[:num_devices])
