"""An operator that nobody has described is read off its fields."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple, cast

from partition.config.schema import ModelConfig
from partition.graph import Category, Layer, build_network
from partition.graph.computational import Phase
from partition.graph.computational.describing import Described, Surroundings, describe
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


def described(operator: Any, values: dict[str, str], spaces: Set[str] = frozenset()) -> Described:
    return describe(operator, Surroundings(network=NETWORK, values=values, spaces=spaces))


def test_what_has_no_value_yet_is_written() -> None:
    operator = AddResidual(NETWORK.layers[1], *map(variable, ("x", "z1", "r1", "residual_workspace")))
    found = described(cast(Any, operator), {"x": "h0@1", "z1": "z1"}, {"residual_workspace"})
    assert [one.name for one in found.reads] == ["x", "z1"]
    assert [one.name for one in found.writes] == ["r1"]
    assert (found.name, found.label, found.record, found.phase) == (
        "add residual",
        "Ad",
        NETWORK.layers[1],
        Phase.FORWARD,
    )
    assert found.formula == "r1 = add residual(h, z)"


def test_where_all_have_a_value_the_last_is_overwritten() -> None:
    found = described(cast(Any, NormGrad(variable("z1"), variable("g1"))), {"z1": "z1", "g1": "∂h1"})
    assert [one.name for one in found.reads] == ["z1", "g1"]
    assert [one.name for one in found.writes] == ["g1"]
    assert (found.name, found.record, found.phase) == ("norm grad", None, Phase.INPUT_GRADIENT)


def test_a_known_operator_says_its_formula() -> None:
    layer = NETWORK.layers[0]
    found = described(Affine(layer, variable("x"), variable("z0")), {"x": "x"})
    assert (found.formula, found.parameters, found.shapes) == ("z = x Wᵀ + b", ("W", "b"), {"W": (4, 3), "b": (4,)})


def test_the_field_of_a_gradient_is_overwritten_beside_what_is_new() -> None:
    class GatedGrad(NamedTuple):
        kept: Variable
        grad: Variable
        grad_a: Variable

    operator = GatedGrad(variable("a"), variable("g1"), variable("g0"))
    found = described(cast(Any, operator), {"a": "a", "g1": "∂h1"})
    assert [one.name for one in found.writes] == ["g1", "g0"]
    assert [one.name for one in found.reads] == ["a", "g1"]


def test_the_last_affine_map_gives_the_output() -> None:
    layer = NETWORK.layers[1]
    found = described(Affine(layer, variable("z0"), variable("z1")), {"z0": "h0"})
    assert (found.formula, found.letter) == ("o = h Wᵀ + b", "o")
