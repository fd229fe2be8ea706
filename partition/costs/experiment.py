"""The devices and the costs of an experiment, whichever of its kinds it is."""

from __future__ import annotations

from partition.config import AnyConfig, ChainConfig, ExperimentConfig
from partition.costs.chain import ChainCosts
from partition.costs.hardware import Cluster, build_cluster
from partition.costs.model import CostModel
from partition.costs.optimizer import optimizer_record
from partition.costs.profile import Profile, read_costs
from partition.costs.source import CostSource
from partition.costs.table import read_chain
from partition.errors import PartitionError
from partition.graph import build_network


def build_costs(config: AnyConfig) -> tuple[Cluster, CostSource]:
    """The devices of an experiment, and what its layers cost on them.

    Raises PartitionError for a table that cannot be read, or that lacks what devices limit.
    """
    cluster = build_devices(config)
    if isinstance(config, ChainConfig):
        chain = read_chain(config.model.costs)
        chain.require_memory("the memory of cluster.devices")
        return cluster, ChainCosts(chain, config.model.microbatch_size, cluster.devices[0])
    network, optimizer = build_network(config.model), optimizer_record(config.optimizer)
    return cluster, CostModel(
        network, optimizer, config.precision.itemsize, cluster.rules,
        has_noise=config.training.noise, is_mixed=config.precision.is_mixed,
    )  # fmt: skip


def build_devices(config: AnyConfig) -> Cluster:
    """The devices of an experiment, whichever of its kinds it is."""
    if isinstance(config, ChainConfig):
        # Seconds are measured, so it does not matter how fast a device is said to be, unless they differ.
        return build_cluster(config.cluster, "float32", needs_rates=False)
    return build_cluster(config.cluster, config.precision.compute, _profile(config))


def _profile(config: ExperimentConfig) -> Profile | None:
    """The measured costs that the experiment names."""
    path = config.planner.costs
    if path is None:
        return None
    file, optimizer = read_costs(path), config.optimizer.name
    if file.optimizer != optimizer:
        raise PartitionError(
            f"planner.costs: {path} was measured with optimizer {file.optimizer}, this is {optimizer}; measure "
            "this experiment with `partition profile`"
        )
    return Profile(file=file, path=path)
