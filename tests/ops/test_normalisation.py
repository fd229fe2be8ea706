"""Shapes: B examples, D features."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from partition.ops import normalisation as norms
from partition.ops.sums import sum_rows

both = pytest.mark.parametrize("has_mean", [True, False])
sizes = st.integers(min_value=1, max_value=30)


def torchs(has_mean: bool, x_BD: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float = 1e-5) -> Tensor:
    if has_mean:
        return torch.nn.functional.layer_norm(x_BD, weight_D.shape, weight_D, bias_D, eps)
    return torch.nn.functional.rms_norm(x_BD, weight_D.shape, weight_D, eps)


def run(has_mean: bool, x_BD: Tensor, weight_D: Tensor, bias_D: Tensor | None) -> Tensor:
    out_BD, statistics_2B = torch.full_like(x_BD, torch.nan), x_BD.new_full((2, len(x_BD)), torch.nan)
    norms.standardise(x_BD, has_mean, 1e-5, out_BD, statistics_2B)
    norms.rescale(out_BD, weight_D, bias_D)
    return out_BD


def grads(has_mean: bool, x_BD: Tensor, weight_D: Tensor, grad_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of x, weight and bias; x becomes x̂ in place."""
    product_BD, statistics_3B = torch.full_like(x_BD, torch.nan), x_BD.new_full((3, len(x_BD)), torch.nan)
    sums_D, grad_weight_D, grad_bias_D = (torch.full_like(weight_D, torch.nan) for _ in range(3))
    norms.standardise(x_BD, has_mean, 1e-5, x_BD, statistics_3B)
    norms.norm_weight_grad(x_BD, grad_BD, True, grad_weight_D, product_BD, sums_D)
    sum_rows(grad_BD, True, grad_bias_D, sums_D)
    norms.norm_input_grad(x_BD, grad_BD, weight_D, has_mean, product_BD, statistics_3B)
    return grad_BD, grad_weight_D, grad_bias_D


@both
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(B=sizes, D=st.integers(min_value=2, max_value=40))
def test_value_and_gradients_are_those_of_torch(has_mean, B, D, assert_equal_in_norm):
    x_BD, weight_D, bias_D = (torch.randn(*shape, dtype=torch.float64) for shape in ((B, D), (D,), (D,)))
    x_BD = 3 * x_BD + 2
    leaves = [one.clone().requires_grad_() for one in (x_BD, weight_D, bias_D)]
    used = leaves if has_mean else [*leaves[:2], None]
    expected_BD, grad_BD = torchs(has_mean, *used), torch.randn(B, D, dtype=torch.float64)
    expected = torch.autograd.grad(expected_BD, [one for one in used if one is not None], grad_BD)
    before_BD = x_BD.clone()
    assert_equal_in_norm(run(has_mean, x_BD, weight_D, bias_D if has_mean else None), expected_BD.detach())
    assert torch.equal(x_BD, before_BD)
    found = grads(has_mean, x_BD, weight_D, grad_BD)
    for one, other in zip(found, expected, strict=False):
        assert (one - other).norm() <= 1e-10 * (1 + other.norm())


@both
def test_in_place_gives_the_same_bits(has_mean):
    x_BD, weight_D = torch.randn(9, 33), torch.randn(33)
    out_BD = run(has_mean, x_BD, weight_D, None)
    norms.standardise(x_BD, has_mean, 1e-5, x_BD, torch.empty(2, 9))
    norms.rescale(x_BD, weight_D, None)
    assert torch.equal(x_BD, out_BD)


@both
def test_a_row_without_variance_is_finite(has_mean):
    x_BD, weight_D = torch.zeros(2, 5), torch.ones(5)
    assert torch.equal(run(has_mean, x_BD.clone(), weight_D, None), x_BD)
    assert all(torch.isfinite(one).all() for one in grads(has_mean, x_BD.clone(), weight_D, torch.ones(2, 5)))


@both
def test_single_precision_is_as_good_as_single_precision_allows(has_mean):
    """A mean a thousand times the deviation leaves four digits to float32; the sums must not lose more."""
    x_BD, weight_D = torch.randn(50, 70_000) + 10, torch.randn(70_000)
    expected_BD = torchs(has_mean, x_BD.double(), weight_D.double(), None)
    assert (run(has_mean, x_BD, weight_D, None) - expected_BD).norm() <= 5e-6 * expected_BD.norm()


def test_only_the_first_microbatch_overwrites_the_weight_gradient():
    standardised_BD, grad_BD, grad_D = torch.randn(4, 3), torch.randn(4, 3), torch.full((3,), torch.nan)
    for is_first in (True, False):
        norms.norm_weight_grad(standardised_BD, grad_BD, is_first, grad_D, torch.empty(4, 3), torch.empty(3))
    assert torch.allclose(grad_D, 2 * (standardised_BD * grad_BD).sum(0))
