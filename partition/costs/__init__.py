"""Hardware, and the bytes, operations and seconds of every action of every stage; no torch."""

from partition.costs.allocator import AllocatorRules, DeviceRoom
from partition.costs.chain import ChainCosts, relative_seconds
from partition.costs.curvature import CurvatureCostModel, step_flop
from partition.costs.experiment import build_costs, build_devices
from partition.costs.hardware import Cluster, Device, build_cluster
from partition.costs.model import CostModel
from partition.costs.noise import NoiseEstimate
from partition.costs.noise_file import GradientNoise, read_noise
from partition.costs.optimizer import OptimizerRecord, optimizer_record
from partition.costs.profile import CostsFile, Profile, read_costs
from partition.costs.source import ActionCost, CostSource, MicrobatchCost, StageCost, StageSource
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
    "CurvatureCostModel",
    "Device",
    "DeviceRoom",
    "GradientNoise",
    "LayerCost",
    "MicrobatchCost",
    "NoiseEstimate",
    "OptimizerRecord",
    "Profile",
    "StageCost",
    "StageSource",
    "build_cluster",
    "build_costs",
    "build_devices",
    "optimizer_record",
    "read_chain",
    "read_costs",
    "read_noise",
    "relative_seconds",
    "step_flop",
]
