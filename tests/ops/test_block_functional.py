"""Shapes: B examples, D features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from partition.ops import block_functional
from partition.ops.dropout import MaskKey


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_mean", [True, False])
def test_norms_are_differentiable_twice(has_mean, has_bias):
    inputs = [leaf(4, 5), leaf(5), *([leaf(5)] if has_bias else [])]

    def function(*given):
        return block_functional.normalise(*given, has_mean=has_mean)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_the_gate_is_differentiable_twice():
    inputs = [leaf(4, 5), leaf(4, 5)]
    assert gradcheck(block_functional.gate, inputs)
    assert gradgradcheck(block_functional.gate, inputs)


def test_dropout_is_differentiable_twice():
    def function(x_BD):
        return block_functional.drop(x_BD, 0.4, MaskKey(0, 1, 0, 0)).square()

    assert gradcheck(function, [leaf(4, 5)])
    assert gradgradcheck(function, [leaf(4, 5)])


@pytest.mark.parametrize("has_mean", [True, False])
def test_both_ways_of_the_first_derivative_agree(has_mean, assert_equal_in_norm):
    """The kernels, and with create_graph=True the same formula written with operators."""
    inputs, grad_BD = [leaf(6, 5), leaf(5)], torch.randn(6, 5, dtype=torch.float64)
    out_BD = block_functional.normalise(*inputs, has_mean=has_mean)
    plain = torch.autograd.grad(out_BD, inputs, grad_BD, retain_graph=True)
    tracked = torch.autograd.grad(out_BD, inputs, grad_BD, create_graph=True)
    for one, other in zip(plain, tracked, strict=True):
        assert_equal_in_norm(one, other.detach())
