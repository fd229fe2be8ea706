"""Hardware, and the bytes, operations and seconds of every action of every stage; no torch."""

from partition.costs.allocator import AllocatorRules, DeviceRoom
from partition.costs.curvature import CurvatureCostModel, step_flop
from partition.costs.hardware import Cluster, Device, build_cluster
from partition.costs.optimizer import OptimizerRecord, optimizer_record
from partition.costs.profile import CostsFile, Profile, read_costs
from partition.costs.stage import CostModel, MicrobatchCost, StageCost

__all__ = [
    "AllocatorRules",
    "Cluster",
    "CostModel",
    "CostsFile",
    "CurvatureCostModel",
    "Device",
    "DeviceRoom",
    "MicrobatchCost",
    "OptimizerRecord",
    "Profile",
    "StageCost",
    "build_cluster",
    "optimizer_record",
    "read_costs",
    "step_flop",
]
