"""Hardware, and the bytes, operations and seconds of every action of every stage; no torch."""

from partition.costs.allocator import AllocatorRules, DeviceRoom
from partition.costs.hardware import Cluster, Device, build_cluster
from partition.costs.noise import NoiseEstimate
from partition.costs.noise_file import GradientNoise, read_noise
from partition.costs.optimizer import OptimizerRecord, optimizer_record
from partition.costs.profile import CostsFile, Profile, read_costs
from partition.costs.stage import CostModel, MicrobatchCost, StageCost

__all__ = [
    "AllocatorRules",
    "Cluster",
    "CostModel",
    "CostsFile",
    "Device",
    "DeviceRoom",
    "GradientNoise",
    "MicrobatchCost",
    "NoiseEstimate",
    "OptimizerRecord",
    "Profile",
    "StageCost",
    "build_cluster",
    "optimizer_record",
    "read_costs",
    "read_noise",
]
