"""The network as a torch.nn.Module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from partition.config import ModelConfig
from partition.errors import PartitionError
from partition.runtime import HandWrittenModule, build_module, from_torch

ACTIVATIONS = ["identity", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu"]


def model(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"in_features": 5, "hidden_features": (7, 3), "out_features": 4, "activation": "gelu", **changes}
    )


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    distance = torch.linalg.vector_norm((one - other).detach())
    return distance.item() / max(torch.linalg.vector_norm(other.detach()).item(), 1e-300)


@pytest.mark.parametrize("rows", [1, 6, 13])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_the_plain_sequential(activation: str, bias: bool, rows: int) -> None:
    module = build_module(model(activation=activation, bias=bias), dtype=torch.float64)
    reference = module.to_torch()
    x, grad = torch.randn(rows, 5, dtype=torch.float64), torch.randn(rows, 4, dtype=torch.float64)
    own_x, torchs_x = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    y, expected = module(own_x), reference(torchs_x)
    y.backward(grad)
    expected.backward(grad)
    pairs = [(own_x, torchs_x), *zip(module.parameters(), reference.parameters(), strict=True)]
    assert relative(y, expected) <= 1e-12
    for one, other in pairs:
        assert one.grad is not None
        assert other.grad is not None
        assert relative(one.grad, other.grad) <= 1e-12


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "relu"])
def test_gradcheck(activation: str) -> None:
    module = build_module(model(activation=activation), dtype=torch.float64)
    parameters = tuple(module.parameters())
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))


def test_leading_dimensions_and_no_grad_give_the_same_logits() -> None:
    module = build_module(model())
    x = torch.randn(2, 3, 5)
    with torch.no_grad():
        without = module(x)
    assert without.shape == (2, 3, 4)
    assert torch.equal(without, module(x))


def test_wrong_width_is_refused_with_both_figures() -> None:
    with pytest.raises(PartitionError, match=r"takes \(..., 5\) inputs, got \(2, 6\)"):
        build_module(model())(torch.randn(2, 6))


def test_second_backward_of_a_retained_graph_gives_the_same_gradients() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5)).sum()
    once = torch.autograd.grad(y, list(module.parameters()), retain_graph=True)
    twice = torch.autograd.grad(y, list(module.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


def test_weight_changed_before_the_backward_is_noticed() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5)).sum()
    with torch.no_grad():
        next(module.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_shared_and_expanded_output_gradients_are_left_alone() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5))
    grad = torch.ones(2, 4)
    y.backward(grad)
    assert torch.equal(grad, torch.ones(2, 4))


def test_seed_decides_and_equal_layers_differ() -> None:
    config = model(hidden_features=(5, 5), out_features=5)
    one, same, other = build_module(config, 1), build_module(config, 1), build_module(config, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.pairs()[0][0], other.pairs()[0][0])
    assert not torch.equal(one.pairs()[0][0], one.pairs()[1][0])


def test_penalty_is_half_lambda_times_squared_weights() -> None:
    module = build_module(model(l2_penalty=0.5))
    squares = sum(float(weight.detach().square().sum()) for weight, _ in module.pairs())
    assert module.penalty().item() == pytest.approx(0.25 * squares, rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_round_trip_through_torch(activation: str) -> None:
    module = build_module(model(activation=activation), seed=3)
    again = from_torch(module.to_torch())
    assert isinstance(again, HandWrittenModule)
    assert again.config.activation == activation
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "holds nothing"),
        ([nn.Linear(2, 2), nn.ReLU()], "holds Linear, ReLU"),
        ([nn.ReLU(), nn.Linear(2, 2)], "holds ReLU, Linear"),
        ([nn.Linear(2, 2), nn.Softplus(), nn.Linear(2, 2)], "Softplus"),
        ([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)], "one kind of activation"),
        ([nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)], "a bias in all layers or in none"),
    ],
)
def test_what_has_no_counterpart_is_refused(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        from_torch(nn.Sequential(*modules))
