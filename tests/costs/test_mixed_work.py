"""Bytes and operations between two number formats, by hand."""

from __future__ import annotations

import pytest

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import CostModel, optimizer_record
from partition.costs.mixed_work import mixed_operator_key, mixed_operator_work
from partition.graph import Category, Layer, build_network
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, MixedOperator, WeightProduct
from partition.graph.program import Variable

NETWORK = build_network(
    ModelConfig.model_validate({"in_features": 3, "hidden_features": (5,), "out_features": 2, "activation": "gelu"})
)
LAYER = NETWORK.layers[0]
assert isinstance(LAYER, Layer)
X, G = Variable("x", Category.DATA, columns=3), Variable("g0", Category.ACTIVATIONS, columns=5)
WIDE = X._replace(name="x_wide", is_wide=True)
ALL = Variable("all", Category.WORKSPACE, has_rows=False, columns=20)
WEIGHT = ALL._replace(columns=15)


@pytest.mark.parametrize(
    ("operator", "flop", "moved_bytes", "key"),
    [
        (Cast(WIDE, X), 0, 7 * 3 * (4 + 2), "cast 3 to products"),
        (Cast(X, WIDE), 0, 7 * 3 * (4 + 2), "cast 3 to sums"),
        (CastWeights(LAYER, ALL), 0, 20 * (4 + 2), "cast weight 3x5 bias"),
        (CastWeights(LAYER, WEIGHT), 0, 15 * (4 + 2), "cast weight 3x5"),
        (
            WeightProduct(LAYER, X, G, ALL, ALL),
            2 * 7 * 15 + 7 * 5,
            2 * (7 * (3 + 5) + 20),
            "weight product 3x5 bias",
        ),
        (AddProduct(LAYER, ALL, WIDE), 20, 20 * (2 + 4 + 4), "added product 3x5 bias"),
    ],
)
def test_work_and_key(operator: MixedOperator, flop: int, moved_bytes: int, key: str) -> None:
    assert mixed_operator_work(operator, 7, 2) == (flop, moved_bytes)
    assert mixed_operator_key(operator) == key


def test_static_bytes_are_those_of_float32() -> None:
    """But for the number that a stage begins its backward with, which is of the format of what it leaves."""
    optimizer = optimizer_record(OptimizerConfig(lr=0.1, momentum=0.9))
    wide, mixed = CostModel(NETWORK, optimizer, 4), CostModel(NETWORK, optimizer, 2, is_mixed=True)
    assert mixed.stage(0, 1).static_bytes(6) == wide.stage(0, 1).static_bytes(6)
    assert mixed.stage(0, 0).static_bytes(6)[Category.WORKSPACE] == 2
    assert mixed.stage(0, 1).step == wide.stage(0, 1).step


def test_forward_bytes_by_hand() -> None:
    """A first stage of layer 0: rows come in float32 and are rounded; while z is made, the weights are there too."""
    optimizer = optimizer_record(OptimizerConfig(lr=0.1))
    forward = CostModel(NETWORK, optimizer, 2, is_mixed=True).stage(0, 0).microbatch(7).forward.memory
    assert forward.net_bytes == 2 * 7 * (3 + 5 + 5)
    loading, product, activation = 7 * 3 * (2 + 4), 2 * 7 * (3 + 5) + 2 * 20, 2 * 7 * (3 + 5 + 5)
    assert forward.peak_bytes == max(loading, product, activation)
