"""Shapes: B examples of a microbatch, I features in, O features out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from partition.ops import affine, affine_bias_grad, affine_input_grad, affine_weight_grad

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 4), (7, 5, 1), (33, 17, 9), (64, 130, 10)]
sizes = st.integers(min_value=1, max_value=70)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def full_of_nan(*shape: int) -> Tensor:
    """A buffer whose old value shows wherever it is read."""
    return torch.full(shape, torch.nan, dtype=torch.float64)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("B", "I", "O"), SHAPES)
def test_forward_is_linear_of_torch(B, I, O, has_bias, assert_equal_in_norm):  # noqa: E741
    x_BI, weight_OI, bias_O = normal(B, I), normal(O, I), normal(O) if has_bias else None
    out_BO = full_of_nan(B, O)
    affine(x_BI, weight_OI, bias_O, out_BO)
    assert_equal_in_norm(out_BO, torch.nn.functional.linear(x_BI, weight_OI, bias_O))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(B=sizes, I=sizes, O=sizes)
def test_gradients_are_those_of_torch(B, I, O, assert_equal_in_norm):  # noqa: E741
    x_BI, weight_OI, bias_O = (t.requires_grad_() for t in (normal(B, I), normal(O, I), normal(O)))
    grad_z_BO = normal(B, O)
    torch.nn.functional.linear(x_BI, weight_OI, bias_O).backward(grad_z_BO)
    grad_x_BI, grad_weight_OI, grad_bias_O = full_of_nan(B, I), full_of_nan(O, I), full_of_nan(O)
    with torch.no_grad():
        affine_input_grad(grad_z_BO, weight_OI, grad_x_BI)
        affine_weight_grad(x_BI, grad_z_BO, True, grad_weight_OI)
        affine_bias_grad(grad_z_BO, True, grad_bias_O, full_of_nan(O))
    assert_equal_in_norm(grad_x_BI, x_BI.grad)
    assert_equal_in_norm(grad_weight_OI, weight_OI.grad)
    assert_equal_in_norm(grad_bias_O, bias_O.grad)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(microbatch_sizes=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=5))
def test_uneven_microbatches_add_up(microbatch_sizes, assert_equal_in_norm):
    x_NI, grad_z_NO = normal(sum(microbatch_sizes), 5), normal(sum(microbatch_sizes), 3)
    grad_weight_OI, grad_bias_O, workspace_O = full_of_nan(3, 5), full_of_nan(3), full_of_nan(3)
    microbatches = zip(x_NI.split(microbatch_sizes), grad_z_NO.split(microbatch_sizes), strict=True)
    for index, (x_BI, grad_z_BO) in enumerate(microbatches):
        affine_weight_grad(x_BI, grad_z_BO, index == 0, grad_weight_OI)
        affine_bias_grad(grad_z_BO, index == 0, grad_bias_O, workspace_O)
    assert_equal_in_norm(grad_weight_OI, grad_z_NO.t() @ x_NI)
    assert_equal_in_norm(grad_bias_O, grad_z_NO.sum(0))


def test_accumulating_is_one_product_added_to_the_old_value():
    """What makes a split and an unsplit run agree to the bit."""
    x_BI, grad_z_BO, grad_weight_OI = normal(32, 17), normal(32, 9), normal(9, 17)
    expected_OI = torch.addmm(grad_weight_OI, grad_z_BO.t(), x_BI)
    affine_weight_grad(x_BI, grad_z_BO, False, grad_weight_OI)
    assert torch.equal(grad_weight_OI, expected_OI)
