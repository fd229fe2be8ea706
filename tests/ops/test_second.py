"""Second derivatives of the activations: expression, kernel and the backward that they are derivatives of agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, Keeps, LossRecord
from partition.ops import ACTIVATIONS, LOSSES
from partition.ops.losses import bind_loss, class_vector, summed_loss

SMOOTH = sorted(name for name, activation in ACTIVATIONS.items() if activation.second is not None)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def kept_of(name: str, z_BO: Tensor) -> Tensor:
    if ACTIVATION_RECORDS[name].keeps == Keeps.PRE_ACTIVATION:
        return z_BO.clone()
    h_BO = torch.empty_like(z_BO)
    ACTIVATIONS[name].forward(z_BO, h_BO)
    return h_BO


def slope(name: str, kept_BO: Tensor) -> Tensor:
    grad_BO = torch.ones_like(kept_BO)
    ACTIVATIONS[name].backward(grad_BO, kept_BO)
    return grad_BO


@pytest.mark.parametrize("name", SMOOTH)
def test_expression_is_the_derivative_of_the_slope_in_what_is_kept(name):
    zeros_BO = torch.zeros(0 if name == "elu" else 1, 5, dtype=torch.float64)  # where elu has a kink in its slope
    z_BO = torch.cat([randn(9, 5) * 3, zeros_BO])
    kept_BO, step = kept_of(name, z_BO), 1e-5
    numeric_BO = (slope(name, kept_BO + step) - slope(name, kept_BO - step)) / (2 * step)
    assert (ACTIVATIONS[name].second.expression(kept_BO) - numeric_BO).abs().max() <= 1e-8


@pytest.mark.parametrize("name", SMOOTH)
def test_kernel_adds_what_the_expression_says(name, assert_equal_in_norm):
    activation, kept_BO = ACTIVATIONS[name], kept_of(name, randn(7, 5) * 3)
    grad_BO, tangent_BO, out_BO = randn(7, 5), randn(7, 5), randn(7, 5)
    before = [tensor.clone() for tensor in (kept_BO, grad_BO, tangent_BO)]
    expected = out_BO + grad_BO * activation.second.expression(kept_BO) * tangent_BO
    workspaces = [torch.full_like(out_BO, float("nan")) for _ in range(ACTIVATION_RECORDS[name].second_workspaces)]
    activation.second.add(grad_BO, kept_BO, tangent_BO, out_BO, workspaces, out_BO.new_empty(()))
    assert_equal_in_norm(out_BO, expected)
    assert all(torch.equal(one, other) for one, other in zip((kept_BO, grad_BO, tangent_BO), before, strict=True))


def test_at_its_kink_elu_has_the_second_derivative_that_torch_has():
    """It was 1 there, torch's is 0: rows of zeros, with biases that begin at zero, made another Hessian."""
    z_BO = torch.tensor([[0.0, -0.0, -1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (slope_BO,) = torch.autograd.grad(torch.nn.functional.elu(z_BO).sum(), z_BO, create_graph=True)
    (expected_BO,) = torch.autograd.grad(slope_BO.sum(), z_BO)
    h_BO, ones_BO, out_BO = kept_of("elu", z_BO.detach().clone()), torch.ones(1, 4).double(), torch.zeros(1, 4).double()
    elu = ACTIVATIONS["elu"].second
    # What is kept is h, so the slope's derivative in z is that in h times the slope.
    assert torch.equal(elu.expression(h_BO) * slope_BO.detach(), expected_BO)
    workspaces = [torch.empty_like(out_BO) for _ in range(2)]
    elu.add(ones_BO, h_BO, slope_BO.detach(), out_BO, workspaces, out_BO.new_empty(()))
    assert torch.equal(out_BO, expected_BO)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_records_price_a_second_derivative_exactly_where_there_is_one(name):
    record, second = ACTIVATION_RECORDS[name], ACTIVATIONS[name].second
    assert (record.second_flop > 0) == (record.second_workspaces > 0) == (second is not None)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(("B", "q"), [(1, 1), (1, 6), (7, 4)])
def test_hessian_and_tangent_of_a_loss_are_autograds(name, B, q):
    record, weight = LOSS_RECORDS[name], 0.37
    check_hessian(record, B, q, weight)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weights", [None, (0.5, 2.0, 1.0, 4.0)])
def test_hessian_and_tangent_of_weighted_cross_entropy_are_autograds(label_smoothing, class_weights):
    record = LOSS_RECORDS["cross_entropy"]
    record = replace(
        record,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        workspace_columns=1 + bool(label_smoothing or class_weights),
    )
    check_hessian(record, 7, 4, 0.37)


@pytest.mark.parametrize("delta", [0.5, 3.0])
def test_hessian_and_tangent_of_huber_know_its_delta(delta):
    check_hessian(replace(LOSS_RECORDS["huber"], delta=delta), 9, 3, 0.1)


def check_hessian(record: LossRecord, B: int, q: int, weight: float) -> None:
    vector = class_vector(record, q)
    loss = bind_loss(record, None if vector is None else torch.tensor(vector, dtype=torch.float64))
    o_Bq, u_Bq = randn(B, q) * 3, randn(B, q)
    targets = torch.randint(q, (B,)) if record.has_class_targets else torch.rand(B, q, dtype=torch.float64)
    _, expected = torch.autograd.functional.hvp(lambda o: weight * summed_loss(record, o, targets), o_Bq, u_Bq)
    grad_Bq, workspace_B1 = torch.empty_like(o_Bq), o_Bq.new_empty(B, record.workspace_columns)
    loss.forward(o_Bq, targets, weight, grad_Bq, workspace_B1, o_Bq.new_empty(()))
    assert (loss.hessian(grad_Bq, targets, weight, u_Bq) - expected).norm() <= 1e-12 * (1 + expected.norm())
    o_before, tangent_Bq = o_Bq.clone(), u_Bq.clone()
    workspace_Bq = torch.empty_like(o_Bq) if record.has_second_workspace else None
    loss.tangent(o_Bq, targets, weight, tangent_Bq, workspace_Bq, workspace_B1, o_Bq.new_empty(()))
    assert (tangent_Bq - expected).norm() <= 1e-12 * (1 + expected.norm())
    assert torch.equal(o_Bq, o_before)
