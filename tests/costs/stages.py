"""The stages of a small network."""

from __future__ import annotations

from typing import Any

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import CostModel, StageCost, optimizer_record
from partition.graph import build_network


def stage(
    first: int = 0, last: int = 1, *, penalty: float = 0.0, bias: bool = True, noise: bool = False, **optimizer: Any
) -> StageCost:
    model = {"in_features": 3, "hidden_features": (5,), "out_features": 2, "l2_penalty": penalty, "bias": bias}
    record = optimizer_record(OptimizerConfig.model_validate({"lr": 0.1, **optimizer}))
    network = build_network(ModelConfig.model_validate(model))
    return CostModel(network, record, 4, has_noise=noise).stage(first, last)
