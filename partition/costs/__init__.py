"""Hardware, and the bytes, operations and seconds of every action of every stage; no torch."""

from partition.costs.allocator import AllocatorRules, DeviceRoom
from partition.costs.chain import ChainCosts, relative_seconds
from partition.costs.experiment import build_costs
from partition.costs.hardware import Cluster, Device, build_cluster
from partition.costs.optimizer import OptimizerRecord, optimizer_record
from partition.costs.profile import CostsFile, Profile, read_costs
from partition.costs.source import ActionCost, CostSource, MicrobatchCost, StageCost
from partition.costs.stage import CostModel
from partition.costs.table import Chain, LayerCost, read_chain

__all__ = [
    "ActionCost",
    "AllocatorRules",
    "Chain",
    "ChainCosts",
    "Cluster",
    "CostModel",
    "CostSource",
    "CostsFile",
    "Device",
    "DeviceRoom",
    "LayerCost",
    "MicrobatchCost",
    "OptimizerRecord",
    "Profile",
    "StageCost",
    "build_cluster",
    "build_costs",
    "optimizer_record",
    "read_chain",
    "read_costs",
    "relative_seconds",
]
