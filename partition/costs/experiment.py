"""The devices and the costs of an experiment, whichever of its kinds it is."""

from __future__ import annotations

from partition.config import AnyConfig, ChainConfig
from partition.costs.chain import ChainCosts
from partition.costs.hardware import Cluster, build_cluster
from partition.costs.optimizer import optimizer_record
from partition.costs.source import CostSource
from partition.costs.stage import CostModel
from partition.costs.table import read_chain
from partition.graph import build_network


def build_costs(config: AnyConfig) -> tuple[Cluster, CostSource]:
    """The devices of an experiment, and what its layers cost on them.

    Raises PartitionError for a table that cannot be read, or that lacks what devices limit.
    """
    if isinstance(config, ChainConfig):
        chain = read_chain(config.model.costs)
        chain.require_memory("the memory of cluster.devices")
        # Seconds are measured, so it does not matter how fast a device is said to be, unless they differ.
        cluster = build_cluster(config.cluster, "float32", needs_rates=False)
        return cluster, ChainCosts(chain, config.model.microbatch_size, cluster.devices[0])
    cluster = build_cluster(config.cluster, config.precision.compute)
    optimizer = optimizer_record(config.optimizer)
    return cluster, CostModel(build_network(config.model), optimizer, config.precision.itemsize)
