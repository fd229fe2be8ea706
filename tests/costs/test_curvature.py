"""What Hessian-vector products cost: products counted by hand, bytes of the stage."""

from __future__ import annotations

import pytest

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import CostModel, CurvatureCostModel, optimizer_record, step_flop
from partition.graph import Category, build_network
from partition.graph.program import operators

ROWS = 6


def models(**changes: object) -> tuple[CostModel, CurvatureCostModel]:
    network = build_network(ModelConfig.model_validate({
        "in_features": 7, "hidden_features": (5, 4, 3), "out_features": 2, "activation": "identity", "bias": False,
        "loss": "mse", **changes,
    }))  # fmt: skip
    record = optimizer_record(OptimizerConfig(lr=0.1))
    return CostModel(network, record, 8), CurvatureCostModel(network, record, 8)


def test_products_are_eight_thirds_of_a_gradients_less_those_of_the_input() -> None:
    gradient, product = models()
    weights = [7 * 5, 5 * 4, 4 * 3, 3 * 2]
    loss = ROWS * 2
    assert step_flop(gradient, [ROWS]) == 2 * ROWS * (3 * sum(weights) - weights[0]) + 4 * loss
    assert step_flop(product, [ROWS]) == 2 * ROWS * (8 * sum(weights) - 5 * weights[0]) + (4 + 1) * loss
    assert step_flop(product, [2, 4]) == step_flop(product, [ROWS])


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh", "silu", "gelu_tanh", "sigmoid"])
def test_a_product_costs_a_small_constant_times_a_gradient(activation: str) -> None:
    gradient, product = models(activation=activation, hidden_features=(64,) * 12, loss="cross_entropy", bias=True)
    assert 2.0 < step_flop(product, [ROWS]) / step_flop(gradient, [ROWS]) < 3.0


def test_a_stage_holds_a_direction_in_place_of_the_optimizers_state() -> None:
    gradient, product = models()
    before, after = gradient.stage(1, 2).static_bytes(4), product.stage(1, 2).static_bytes(4)
    assert after[Category.OPTIMIZER] == after[Category.GRADIENTS] == after[Category.PARAMETERS] == (20 + 12) * 8
    assert after[Category.WORKSPACE] == before[Category.WORKSPACE] + 8


def test_every_operator_has_a_key_and_work() -> None:
    _, product = models(activation="gelu", bias=True)
    stage = product.stage(0, 3)
    for action in (stage.microbatch(ROWS).forward, stage.microbatch(ROWS).backward):
        assert all(work.moved_bytes > 0 for work in action.kernels)
    counts = stage._actions["backward"].operator_counts
    assert sum(counts.values()) == len(list(operators(stage.program.backward)))
    assert counts["weight gradient pair 4x3 bias"] == counts["weight gradient first 7x5 bias"] == 1


def test_every_operator_of_blocks_has_a_key_and_work() -> None:
    """A block's products are 8/3 of a gradient's too."""
    blocks = (
        {"norm": "layer_norm"},
        {"residual": {"norm": "rms_norm", "swiglu": 64}, "repeat": 6},
        {"residual": {"hidden": 64, "activation": "gelu"}, "repeat": 6},
    )
    network = build_network(ModelConfig.model_validate({"in_features": 64, "out_features": 2, "blocks": blocks}))
    record = optimizer_record(OptimizerConfig(lr=0.1))
    gradient, product = CostModel(network, record, 8), CurvatureCostModel(network, record, 8)
    assert 2.5 < step_flop(product, [500]) / step_flop(gradient, [500]) < 2.8
    stage = product.stage(0, network.num_layers - 1)
    for action in ("forward", "backward"):
        program = stage._actions[action]
        assert all(work.moved_bytes > 0 for work in program.kernels(ROWS))
        assert sum(program.operator_counts.values()) == len(list(operators(getattr(stage.program, action))))
    counts = stage._actions["backward"].operator_counts
    assert counts["swiglu gradient pair 64"] == counts["added input gradient pair 64x64"] == 6
    assert counts["rms_norm 64 rescaled pair"] == 6
    assert counts["layer_norm 64 bias weight gradient pair"] + counts["layer_norm 64 bias gradient pair"] == 1
