"""Stages of one network share what they cost."""

from __future__ import annotations

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import CostModel, optimizer_record
from partition.graph import build_network


def test_equal_layers_share_their_costs() -> None:
    model = {"in_features": 4, "hidden_features": (4,) * 6, "out_features": 2}
    costs = CostModel(build_network(ModelConfig.model_validate(model)), optimizer_record(OptimizerConfig(lr=0.1)), 4)
    assert costs.stage(1, 3) is costs.stage(2, 4)
    assert costs.stage(0, 2) is not costs.stage(1, 3)
