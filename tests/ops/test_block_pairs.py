"""Pairs of norms and gates against the derivative along a direction; nothing is allocated.

Shapes: B examples, D features, H columns of a gate; a pair has 2B rows.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jvp

from partition.ops import block_pairs
from partition.ops.pairs import add_input_grad_pair

SHAPES = [(1, 2), (1, 5), (7, 5), (6, 1)]
EPS = 1e-2


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def norm_of(x: Tensor, weight: Tensor, bias: Tensor, has_mean: bool) -> Tensor:
    """In torch's primitive operators."""
    centred = x - x.mean(1, keepdim=True) if has_mean else x
    return centred * (centred.square().mean(1, keepdim=True) + EPS).rsqrt() * weight + bias


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize(("B", "D"), SHAPES)
def test_norms_and_their_gradients(B, D, has_mean, is_in_place, assert_equal_in_norm):
    point, along = (randn(B, D), randn(D), randn(D)), (randn(B, D), randn(D), randn(D))
    grad, grad_along = randn(B, D), randn(B, D)

    def grads(x: Tensor, weight: Tensor, bias: Tensor, grad_n: Tensor) -> tuple[Tensor, ...]:
        n = norm_of(x, weight, bias, has_mean)
        return torch.autograd.grad(n, (x, weight, bias), grad_n, create_graph=True)

    value, tangent = jvp(lambda *of: norm_of(*of, has_mean), point, along)
    found, products = jvp(grads, (*point, grad), (*along, grad_along))
    x = torch.cat([point[0], along[0]])
    out, statistics = (x if is_in_place else torch.empty_like(x)), torch.empty(5, B, dtype=torch.float64)
    with torch.no_grad():
        block_pairs.standardise_pair(x, has_mean, EPS, out, statistics)
        standardised = out.clone()
        block_pairs.rescale_pair(out, point[1], point[2], along[1], along[2])
        assert_equal_in_norm(out, torch.cat([value, tangent]))
        pair, product, workspace = torch.cat([grad_along, grad]), randn(D), randn(B, D)
        expected = products[1] + product
        block_pairs.norm_weight_grad_pair(standardised, pair, False, product, workspace, randn(D))
        assert_equal_in_norm(product, expected)
        block_pairs.norm_weight_grad_pair(standardised, pair, True, product, workspace, randn(D))
        assert_equal_in_norm(product, products[1])
        block_pairs.norm_input_grad_pair(standardised, pair, point[1], along[1], has_mean, workspace, statistics)
    if D > 1 or not has_mean:  # else both are 0
        assert_equal_in_norm(pair, torch.cat([products[0], found[0]]))


@pytest.mark.parametrize(("B", "H"), SHAPES)
def test_gates_and_their_gradients(B, H, assert_equal_in_norm):
    point, along = (randn(B, H), randn(B, H)), (randn(B, H), randn(B, H))
    grad, grad_along = randn(B, H), randn(B, H)

    def gate(a: Tensor, b: Tensor) -> Tensor:
        return torch.nn.functional.silu(a) * b

    def grads(a: Tensor, b: Tensor, grad_h: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(gate(a, b), (a, b), grad_h, create_graph=True)

    value, tangent = jvp(gate, point, along)
    found, products = jvp(grads, (*point, grad), (*along, grad_along))
    (a, b), h = (torch.cat(pair) for pair in zip(point, along, strict=True)), randn(2 * B, H)
    pair, grad_a, kept_b = torch.cat([grad_along, grad]), randn(2 * B, H), b.clone()
    with torch.no_grad():
        block_pairs.gated_pair(a, b, h)
        assert_equal_in_norm(h, torch.cat([value, tangent]))
        block_pairs.gated_grad_pair(a, b, pair, grad_a, [randn(B, H), randn(B, H)], randn(1)[0])
    assert_equal_in_norm(grad_a, torch.cat([products[0], found[0]]))
    assert_equal_in_norm(pair, torch.cat([products[1], found[1]]))
    assert_equal_in_norm(a, h)
    assert torch.equal(b, kept_b)


def test_an_added_input_gradient_has_the_tangent_above(assert_equal_in_norm):
    point, along, before = (randn(4, 3), randn(3, 5)), (randn(4, 3), randn(3, 5)), randn(8, 5)
    value, tangent = jvp(torch.mm, point, along)
    out = before.clone()
    add_input_grad_pair(torch.cat([along[0], point[0]]), point[1], along[1], out)
    assert_equal_in_norm(out, torch.cat([tangent, value]) + before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("B", "D"), [(1, 1), (7, 5), (500, 784), (3, 40_000), (40_000, 2)])
def test_nothing_is_allocated(B, D, dtype, num_threads, allocator_events):
    x, out, grad, other = (torch.randn(2 * B, D, dtype=dtype) for _ in range(4))
    spaces, statistics = [torch.randn(B, D, dtype=dtype) for _ in range(2)], torch.randn(5, B, dtype=dtype)
    weight, bias, product, sums = (torch.randn(D, dtype=dtype) for _ in range(4))
    number = torch.zeros((), dtype=dtype)

    def run() -> None:
        for has_mean in (True, False):
            block_pairs.standardise_pair(x, has_mean, EPS, out, statistics)
            block_pairs.norm_weight_grad_pair(out, grad, True, product, spaces[0], sums)
            block_pairs.norm_weight_grad_pair(out, grad, False, product, spaces[0], sums)
            block_pairs.norm_input_grad_pair(out, grad, weight, bias, has_mean, spaces[0], statistics)
            block_pairs.rescale_pair(out, weight, bias, bias, weight)
        block_pairs.gated_pair(x, grad, other)
        block_pairs.gated_grad_pair(x, grad, out, other, spaces, number)

    assert allocator_events(run) == []
    assert torch.get_num_threads() == num_threads
