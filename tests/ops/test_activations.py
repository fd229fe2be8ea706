"""Shapes: every tensor has the shape of z."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from partition.graph import ACTIVATION_RECORDS, Keeps
from partition.ops import ACTIVATIONS
from partition.runtime.plain import Sine

TORCH = {
    "identity": torch.nn.Identity(),
    "relu": torch.nn.ReLU(),
    "tanh": torch.nn.Tanh(),
    "sigmoid": torch.nn.Sigmoid(),
    "gelu": torch.nn.GELU(),
    "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    "silu": torch.nn.SiLU(),
    "leaky_relu": torch.nn.LeakyReLU(),
    "elu": torch.nn.ELU(),
    "softplus": torch.nn.Softplus(),
    "sin": Sine(),
}
names = pytest.mark.parametrize("name", sorted(ACTIVATIONS))


def normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def gelu_tanh_derivative(z: float) -> float:
    inner, slope = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)
    return (1 + math.tanh(inner)) / 2 + z / 2 * (1 - math.tanh(inner) ** 2) * slope


DERIVATIVES_BY_HAND = {
    "identity": lambda _: 1.0,
    "relu": lambda z: 1.0 if z > 0 else 0.0,
    "tanh": lambda z: 1 - math.tanh(z) ** 2,
    "sigmoid": lambda z: logistic(z) * (1 - logistic(z)),
    "gelu": lambda z: normal_cdf(z) + z * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi),
    "gelu_tanh": gelu_tanh_derivative,
    "silu": lambda z: logistic(z) * (1 + z * (1 - logistic(z))),
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else math.exp(z),
    "softplus": logistic,
    "sin": math.cos,
}


def kept_after_forward(name: str, z: Tensor) -> Tensor:
    h = torch.empty_like(z)
    ACTIVATIONS[name].forward(z, h)
    return z if ACTIVATION_RECORDS[name].keeps == Keeps.PRE_ACTIVATION else h


def test_every_record_is_filed_under_its_name():
    assert {name: activation.name for name, activation in ACTIVATIONS.items()} == {name: name for name in TORCH}


@names
def test_derivative_is_the_one_written_by_hand(name):
    z = torch.linspace(-8, 8, 321, dtype=torch.float64)
    gradient = torch.ones_like(z)
    ACTIVATIONS[name].backward(gradient, kept_after_forward(name, z))
    by_hand = torch.tensor([DERIVATIVES_BY_HAND[name](value) for value in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(gradient, by_hand, rtol=0, atol=1e-14)


@names
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(B=st.integers(min_value=1, max_value=40), O=st.integers(min_value=1, max_value=40))
def test_value_and_gradient_are_those_of_torch(name, B, O, assert_equal_in_norm):  # noqa: E741
    z_BO, grad_h_BO = torch.randn(B, O, dtype=torch.float64), torch.randn(B, O, dtype=torch.float64)
    leaf_BO = (4 * z_BO).requires_grad_()
    expected_BO = TORCH[name](leaf_BO)
    (expected_grad_BO,) = torch.autograd.grad(expected_BO, leaf_BO, grad_h_BO)
    h_BO = torch.full_like(z_BO, torch.nan)
    ACTIVATIONS[name].forward(4 * z_BO, h_BO)
    ACTIVATIONS[name].backward(grad_h_BO, kept_after_forward(name, 4 * z_BO))
    assert_equal_in_norm(h_BO, expected_BO.detach())
    assert_equal_in_norm(grad_h_BO, expected_grad_BO)


@names
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 7, 64, 1001, 40_003])
def test_in_place_gives_the_same_bits(name, dtype, size):
    z = 3 * torch.randn(size, dtype=dtype)
    h = torch.empty_like(z)
    ACTIVATIONS[name].forward(z, h)
    ACTIVATIONS[name].forward(z, z)
    assert torch.equal(z, h)


@names
def test_forward_into_another_buffer_leaves_z(name):
    z = torch.randn(9)
    before = z.clone()
    ACTIVATIONS[name].forward(z, torch.empty_like(z))
    assert torch.equal(z, before)


@names
@pytest.mark.parametrize(("z", "limit"), [(-60.0, 0.0), (60.0, 1.0)])
def test_derivative_far_from_zero_is_flat(name, z, limit):
    gradient = torch.ones(1)
    ACTIVATIONS[name].backward(gradient, kept_after_forward(name, torch.tensor([z])))
    flat = {"identity": 1.0, "tanh": 0.0, "sigmoid": 0.0, "sin": math.cos(z)}.get(name, limit)
    if name == "leaky_relu":
        flat = 1.0 if z > 0 else 0.01
    torch.testing.assert_close(gradient, torch.tensor([flat]))


def test_relu_has_no_gradient_at_zero():
    gradient = torch.ones(3)
    ACTIVATIONS["relu"].backward(gradient, kept_after_forward("relu", torch.tensor([0.0, -0.0, 1e-30])))
    assert gradient.tolist() == [0.0, 0.0, 1.0]


@names
def test_not_a_number_is_not_hidden(name):
    h = torch.tensor([torch.nan, 1.0])
    ACTIVATIONS[name].forward(h, h)
    assert h.isnan().tolist() == [True, False]
