"""Operators of pairs against the derivative along a direction; nothing is allocated.

Shapes: B examples, I features in, O features out; a pair has 2B rows.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jvp

from partition.graph import ACTIVATION_RECORDS, Keeps
from partition.ops import ACTIVATIONS, functional
from partition.ops.pairs import activate_pair, activation_grad_pair, affine_input_grad_pair, affine_pair, dot_rows

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 5, 3)]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_tangent", [True, False])
@pytest.mark.parametrize(("B", "I", "O"), SHAPES)
def test_affine_pair(B, I, O, has_tangent, has_bias, assert_equal_in_norm):  # noqa: E741
    point = [randn(B, I), randn(O, I), *([randn(O)] if has_bias else [])]
    along = [randn(B, I) if has_tangent else torch.zeros(B, I).double(), randn(O, I), *([randn(O)] * has_bias)]
    value, tangent = jvp(torch.nn.functional.linear, tuple(point), tuple(along))
    x = torch.cat([point[0], along[0]]) if has_tangent else point[0]
    out = randn(2 * B, O)
    affine_pair(x, point[1], point[2] if has_bias else None, along[1], along[2] if has_bias else None, out)
    assert_equal_in_norm(out, torch.cat([value, tangent]))


@pytest.mark.parametrize(("B", "I", "O"), SHAPES)
def test_affine_input_grad_pair_has_the_tangent_above(B, I, O, assert_equal_in_norm):  # noqa: E741
    point, along = (randn(B, O), randn(O, I)), (randn(B, O), randn(O, I))
    value, tangent = jvp(torch.mm, point, along)
    out = randn(2 * B, I)
    affine_input_grad_pair(torch.cat([along[0], point[0]]), point[1], along[1], out)
    assert_equal_in_norm(out, torch.cat([tangent, value]))


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_pairs_are_the_derivatives_along_z(name, is_in_place, assert_equal_in_norm):
    """Forward and backward, from the kept pair; R{g phi'} through autograd's own second derivative."""
    z_BO, z_tangent_BO, grad_BO, grad_tangent_BO = (randn(5, 3) for _ in range(4))
    z_BO += 0.1 * z_BO.sign()
    is_output_kept = ACTIVATION_RECORDS[name].keeps == Keeps.OUTPUT
    value, tangent = jvp(lambda z: functional.activate(name, z), z_BO, z_tangent_BO)
    pair = torch.cat([z_BO, z_tangent_BO])
    out = pair if is_in_place else torch.empty_like(pair)
    before = pair.clone()
    activate_pair(ACTIVATIONS[name], pair, out, is_output_kept=is_output_kept)
    assert_equal_in_norm(out, torch.cat([value, tangent]))
    if name == "identity":
        return

    def grad_of(z: Tensor, grad: Tensor) -> Tensor:
        with torch.enable_grad():
            (found,) = torch.autograd.grad(functional.activate(name, z), z, grad, create_graph=True)
        return found

    value, tangent = jvp(grad_of, (z_BO, grad_BO), (z_tangent_BO, grad_tangent_BO))
    kept, grads = out if is_output_kept else before, torch.cat([grad_tangent_BO, grad_BO])
    workspaces = [torch.empty_like(z_BO) for _ in range(ACTIVATION_RECORDS[name].second_workspaces)]
    activation_grad_pair(ACTIVATIONS[name], grads, kept, workspaces, z_BO.new_empty(()))
    assert_equal_in_norm(grads, torch.cat([tangent, value]))


def test_dot_rows(assert_equal_in_norm):
    x_OI, y_OI, out_O = randn(4, 7), randn(4, 7), randn(4)
    dot_rows(x_OI, y_OI, out_O)
    assert_equal_in_norm(out_O, (x_OI * y_OI).sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("B", "I", "O"), [(1, 1, 1), (7, 5, 3), (500, 784, 10), (100, 1024, 512)])
def test_nothing_is_allocated(B, I, O, dtype, num_threads, allocator_events):  # noqa: E741
    x, z, grad, grad_x, weight, along, bias = (
        torch.randn(shape, dtype=dtype)
        for shape in ((2 * B, I), (2 * B, O), (2 * B, O), (2 * B, I), (O, I), (O, I), (O,))
    )
    workspaces, number = [torch.randn(B, O, dtype=dtype) for _ in range(2)], torch.zeros((), dtype=dtype)
    inputs, rows = x[:B].clone(), torch.empty(O, dtype=dtype)

    def run() -> None:
        affine_pair(x, weight, bias, along, bias, z)
        affine_pair(inputs, weight, bias, along, bias, z)
        affine_input_grad_pair(grad, weight, along, grad_x)
        dot_rows(weight, along, rows)
        for name, activation in ACTIVATIONS.items():
            record = ACTIVATION_RECORDS[name]
            space = workspaces[0] if record.has_workspace else None
            activate_pair(activation, z, grad, is_output_kept=record.keeps == Keeps.OUTPUT, workspace_BO=space)
            activation_grad_pair(activation, grad, z, workspaces[: record.second_workspaces], number)

    assert allocator_events(run) == []
    assert torch.get_num_threads() == num_threads
