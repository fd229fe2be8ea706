"""An operator that nobody has described is read off its fields."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from partition.config.schema import ModelConfig
from partition.graph import Category, Layer, build_network
from partition.graph.computational import Phase
from partition.graph.describing import describe
from partition.graph.program import Affine, Variable

NETWORK = build_network(ModelConfig(in_features=3, hidden_features=(4,), out_features=2))


class AddResidual(NamedTuple):
    layer: Layer
    x: Variable
    z: Variable
    out: Variable
    workspace: Variable


class NormGrad(NamedTuple):
    kept: Variable
    grad: Variable


def variable(name: str) -> Variable:
    return Variable(name, Category.ACTIVATIONS, columns=4)


def test_what_has_no_value_yet_is_written() -> None:
    operator = AddResidual(NETWORK.layers[1], *map(variable, ("x", "z1", "r1", "residual_workspace")))
    found = describe(cast(Any, operator), NETWORK, {"x", "z1"})
    assert [one.name for one in found.reads] == ["x", "z1"]
    assert [one.name for one in found.writes] == ["r1"]
    assert (found.name, found.label, found.layer, found.phase) == ("add residual", "Ad", 1, Phase.FORWARD)
    assert found.formula == "r1 = add residual(x, z1)"


def test_where_all_have_a_value_the_last_is_overwritten() -> None:
    found = describe(cast(Any, NormGrad(variable("z1"), variable("g1"))), NETWORK, {"z1", "g1"})
    assert [one.name for one in found.reads] == ["z1", "g1"]
    assert [one.name for one in found.writes] == ["g1"]
    assert (found.name, found.layer, found.phase) == ("norm grad", None, Phase.INPUT_GRADIENT)


def test_a_known_operator_says_its_formula() -> None:
    layer = NETWORK.layers[0]
    found = describe(Affine(layer, variable("x"), variable("z0")), NETWORK, {"x"})
    assert (found.formula, found.parameters, found.shapes) == ("z = x Wᵀ + b", ("W", "b"), {"W": (4, 3), "b": (4,)})
