"""Shapes: B examples, H columns."""

from __future__ import annotations

import pytest
import torch

from partition.ops.gate import gated, gated_grad


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 130)])
def test_value_and_gradients_are_those_of_torch(shape, assert_equal_in_norm):
    a_BH, b_BH, grad_BH = (torch.randn(*shape, dtype=torch.float64) for _ in range(3))
    leaves = [one.clone().requires_grad_() for one in (a_BH, b_BH)]
    h_BH = torch.nn.functional.silu(leaves[0]) * leaves[1]
    expected = torch.autograd.grad(h_BH, leaves, grad_BH)
    out_BH, grad_a_BH, b_before_BH = torch.empty_like(a_BH), torch.full_like(a_BH, torch.nan), b_BH.clone()
    gated(a_BH, b_BH, out_BH)
    gated_grad(a_BH, b_BH, grad_BH, grad_a_BH)
    assert_equal_in_norm(out_BH, h_BH.detach())
    assert_equal_in_norm(grad_a_BH, expected[0])
    assert_equal_in_norm(grad_BH, expected[1])
    assert torch.equal(a_BH, out_BH), "h anew, with the bits of the forward"
    assert torch.equal(b_BH, b_before_BH)


def test_in_place_gives_the_same_bits():
    a_BH, b_BH, out_BH = torch.randn(9, 33), torch.randn(9, 33), torch.empty(9, 33)
    gated(a_BH, b_BH, out_BH)
    gated(a_BH, b_BH, a_BH)
    assert torch.equal(a_BH, out_BH)
