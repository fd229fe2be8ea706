"""Norms of every example's gradient against torch.func.vmap of grad, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from partition.ops import affine_example_norms
from partition.ops.norms import norm_example_norms

SHAPES = [(1, 1, 1), (1, 4, 3), (7, 1, 5), (6, 5, 1), (9, 8, 7)]


def norms_by_autograd(x_BI: Tensor, grad_z_BO: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Of the gradients of grad_z . (W x + b) in W and b, one example at a time."""
    parameters = {"weight": weight_OI} if bias_O is None else {"weight": weight_OI, "bias": bias_O}

    def value(parameters: dict[str, Tensor], x_I: Tensor, grad_z_O: Tensor) -> Tensor:
        z_O = parameters["weight"] @ x_I + parameters.get("bias", torch.zeros(()))
        return (grad_z_O * z_O).sum()

    grads = vmap(grad(value), (None, 0, 0))(parameters, x_BI, grad_z_BO)
    return torch.stack([of.flatten(1).square().sum(1) for of in grads.values()]).sum(0).sqrt()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_norms_are_those_of_one_gradient_for_each_example(shape: tuple[int, int, int], bias: bool) -> None:
    B, I, O = shape  # noqa: E741
    x_BI, grad_z_BO, weight_OI, bias_O = (torch.randn(of, dtype=torch.float64) for of in ((B, I), (B, O), (O, I), (O,)))
    grad_z_BO[0] = 0.0  # an example that a ReLU has cut off
    expected_B = norms_by_autograd(x_BI, grad_z_BO, weight_OI, bias_O if bias else None)
    # Each example by itself, then all of them.
    for rows in (*(slice(n, n + 1) for n in range(B)), slice(None)):
        x, grad_z, norm = x_BI[rows], grad_z_BO[rows], torch.empty((), dtype=torch.float64)
        affine_example_norms(x, grad_z, bias, torch.empty(2, len(x), dtype=torch.float64), norm)
        torch.testing.assert_close(norm, expected_B[rows].norm(), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("bias", [True, False])
def test_norm_of_a_norm_is_that_of_all_gradients_in_weight_and_bias(bias: bool) -> None:
    standardised_BD, grad_BD = torch.randn(2, 6, 4, dtype=torch.float64)
    weight_D, bias_D = torch.randn(2, 4, dtype=torch.float64)

    def value(weight_D: Tensor, bias_D: Tensor, x_D: Tensor, grad_D: Tensor) -> Tensor:
        return (grad_D * (x_D * weight_D + bias_D)).sum()

    grads = vmap(grad(value, (0, 1)), (None, None, 0, 0))(weight_D, bias_D, standardised_BD, grad_BD)
    found, statistics_3B = torch.empty((), dtype=torch.float64), torch.ones(3, 6, dtype=torch.float64)
    norm_example_norms(standardised_BD * grad_BD, grad_BD if bias else None, statistics_3B, found)
    expected = torch.cat(grads if bias else grads[:1]).norm()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    assert torch.equal(statistics_3B[0], torch.ones(6, dtype=torch.float64)), "what the input gradient reads"
