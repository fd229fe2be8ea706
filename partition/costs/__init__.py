"""Hardware, and the bytes, operations and seconds of every action of every stage; no torch."""

from partition.costs.chain import ChainCosts, relative_seconds
from partition.costs.experiment import build_costs
from partition.costs.hardware import Cluster, Device, build_cluster
from partition.costs.optimizer import OptimizerRecord, optimizer_record
from partition.costs.source import ActionCost, CostSource, MicrobatchCost, StageCost
from partition.costs.stage import CostModel
from partition.costs.table import Chain, LayerCost, read_chain

__all__ = [
    "ActionCost",
    "Chain",
    "ChainCosts",
    "Cluster",
    "CostModel",
    "CostSource",
    "Device",
    "LayerCost",
    "MicrobatchCost",
    "OptimizerRecord",
    "StageCost",
    "build_cluster",
    "build_costs",
    "optimizer_record",
    "read_chain",
    "relative_seconds",
]
