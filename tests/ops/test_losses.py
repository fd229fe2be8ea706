"""Shapes: B examples of a microbatch, N of a minibatch, q outputs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from partition.graph import LOSS_RECORDS
from partition.ops import LOSSES
from partition.ops.losses import bind_loss, class_vector, summed_loss, summed_weight

TORCH = {
    "cross_entropy": torch.nn.CrossEntropyLoss(),
    "mse": torch.nn.MSELoss(),
    "huber": torch.nn.HuberLoss(),
    "binary_cross_entropy": torch.nn.BCEWithLogitsLoss(),
}
names = pytest.mark.parametrize("name", sorted(LOSSES))
sizes = st.integers(min_value=1, max_value=40)


def draw(name: str, num_examples: int, num_outputs: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Outputs and targets of a minibatch."""
    o_Nq = scale * torch.randn(num_examples, num_outputs, dtype=torch.float64)
    if LOSS_RECORDS[name].has_class_targets:
        return o_Nq, torch.randint(num_outputs, (num_examples,))
    if name == "binary_cross_entropy":
        return o_Nq, torch.rand(num_examples, num_outputs, dtype=torch.float64)
    return o_Nq, torch.randn(num_examples, num_outputs, dtype=torch.float64)


def compute(name: str, o_Bq: Tensor, targets: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient, each buffer full of NaN before; o is overwritten where the loss works in place."""
    grad_o_Bq = o_Bq if LOSS_RECORDS[name].is_in_place else torch.full_like(o_Bq, torch.nan)
    columns = LOSS_RECORDS[name].workspace_columns
    workspace_B1, loss = o_Bq.new_full((len(o_Bq), columns), torch.nan), o_Bq.new_full((), torch.nan)
    LOSSES[name].forward(o_Bq, targets, weight, grad_o_Bq, workspace_B1, loss)
    return loss, grad_o_Bq


def compute_with_torch(name: str, o_Nq: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    leaf_Nq = o_Nq.clone().requires_grad_()
    loss = TORCH[name](leaf_Nq, targets)
    loss.backward()
    return loss.detach(), leaf_Nq.grad


def test_every_record_is_filed_under_its_name():
    assert {name: loss.name for name, loss in LOSSES.items()} == {name: name for name in TORCH}


@names
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(N=sizes, q=sizes)
@example(N=70_000, q=3)
def test_value_and_gradient_are_those_of_torch(name, N, q, assert_equal_in_norm):
    o_Nq, targets = draw(name, N, q)
    expected_loss, expected_grad_Nq = compute_with_torch(name, o_Nq, targets)
    loss, grad_o_Nq = compute(name, o_Nq, targets, 1 / N)
    assert_equal_in_norm(loss, expected_loss)
    assert_equal_in_norm(grad_o_Nq, expected_grad_Nq)


@names
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(microbatch_sizes=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=5))
def test_uneven_microbatches_add_up_to_the_minibatch(name, microbatch_sizes, assert_equal_in_norm):
    o_Nq, targets = draw(name, sum(microbatch_sizes), 7)
    expected_loss, expected_grad_Nq = compute_with_torch(name, o_Nq, targets)
    microbatches = zip(o_Nq.split(microbatch_sizes), targets.split(microbatch_sizes), strict=True)
    results = [compute(name, o_Bq, targets_B, 1 / len(o_Nq)) for o_Bq, targets_B in microbatches]
    assert_equal_in_norm(sum(loss for loss, _ in results), expected_loss)
    assert_equal_in_norm(torch.cat([grad_o_Bq for _, grad_o_Bq in results]), expected_grad_Nq)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("has_weights", [True, False])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(microbatch_sizes=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=5))
def test_class_weights_and_smoothed_labels_are_those_of_torch(
    label_smoothing, has_weights, microbatch_sizes, assert_equal_in_norm
):
    """Over uneven microbatches: the weight is one over the minibatch's summed class weights."""
    weights = (0.5, 2.0, 1.0, 3.25, 0.125) if has_weights else None
    record = replace(
        LOSS_RECORDS["cross_entropy"], workspace_columns=2, label_smoothing=label_smoothing, class_weights=weights
    )
    o_Nq, targets_N = draw("cross_entropy", sum(microbatch_sizes), 5)
    leaf_Nq = o_Nq.clone().requires_grad_()
    vector = class_vector(record, 5)
    class_weights_q = None if vector is None else torch.tensor(vector).double()
    expected = torch.nn.functional.cross_entropy(leaf_Nq, targets_N, class_weights_q, label_smoothing=label_smoothing)
    expected.backward()
    kernel, weight = bind_loss(record, class_weights_q).forward, 1 / summed_weight(record, targets_N.cpu().numpy())
    losses, grads = [], []
    for o_Bq, targets_B in zip(o_Nq.split(microbatch_sizes), targets_N.split(microbatch_sizes), strict=True):
        grad_o_Bq, loss = torch.full_like(o_Bq, torch.nan), o_Bq.new_empty(())
        columns = 2 if vector else 1
        kernel(o_Bq, targets_B, weight, grad_o_Bq, o_Bq.new_full((len(o_Bq), columns), torch.nan), loss)
        grads.append(grad_o_Bq)
        losses.append(loss)
    assert_equal_in_norm(sum(losses), expected.detach())
    assert_equal_in_norm(torch.cat(grads), leaf_Nq.grad)
    assert_equal_in_norm(summed_loss(record, o_Nq, targets_N) * weight, expected.detach())


@pytest.mark.parametrize("delta", [0.25, 4.0])
def test_huber_has_the_delta_of_its_record(delta, assert_equal_in_norm):
    o_Nq, y_Nq = draw("huber", 9, 4)
    leaf_Nq = o_Nq.clone().requires_grad_()
    expected = torch.nn.functional.huber_loss(leaf_Nq, y_Nq, delta=delta)
    expected.backward()
    record, grad_Nq, loss = replace(LOSS_RECORDS["huber"], delta=delta), torch.empty_like(o_Nq), o_Nq.new_empty(())
    bind_loss(record, None).forward(o_Nq, y_Nq, 1 / 9, grad_Nq, o_Nq.new_empty(9, 1), loss)
    assert_equal_in_norm(loss, expected.detach())
    assert_equal_in_norm(grad_Nq, leaf_Nq.grad)
    assert_equal_in_norm(summed_loss(record, o_Nq, y_Nq) / 9, expected.detach())


def test_binary_cross_entropy_of_a_confident_prediction_keeps_its_digits():
    """Softplus minus the logit, subtracted as such, would be exactly zero in single precision."""
    o_Bq, y_Bq = torch.tensor([[30.0, -30.0]]), torch.tensor([[1.0, 0.0]])
    loss = torch.empty(())
    LOSSES["binary_cross_entropy"].forward(o_Bq, y_Bq, 1.0, torch.empty(1, 2), torch.empty(1, 2), loss)
    assert loss.item() == pytest.approx(math.exp(-30.0), rel=1e-6)


@pytest.mark.parametrize("scale", [50.0, 1e4, 1e300])
def test_large_logits_do_not_overflow(scale, assert_equal_in_norm):
    o_Nq, targets_N = draw("cross_entropy", 30, 11, scale)
    expected_loss, expected_grad_Nq = compute_with_torch("cross_entropy", o_Nq, targets_N)
    loss, grad_o_Nq = compute("cross_entropy", o_Nq, targets_N, 1 / 30)
    assert torch.isfinite(loss)
    assert_equal_in_norm(loss, expected_loss)
    assert_equal_in_norm(grad_o_Nq, expected_grad_Nq)


def test_gradient_of_a_confident_prediction_keeps_its_digits():
    """Softmax minus one, subtracted as such, would be exactly zero here."""
    _, grad_o_Bq = compute("cross_entropy", torch.tensor([[40.0, 0.0]]).double(), torch.tensor([0]), 1.0)
    assert grad_o_Bq[0, 0].item() == pytest.approx(-math.exp(-40.0), rel=1e-12)


def test_cross_entropy_leaves_the_logits():
    o_Bq, targets_B = draw("cross_entropy", 5, 3)
    before_Bq = o_Bq.clone()
    compute("cross_entropy", o_Bq, targets_B, 0.2)
    assert torch.equal(o_Bq, before_Bq)


@pytest.mark.parametrize(
    ("target", "error"), [(-1, IndexError), (-100, IndexError), (3, IndexError), (-(2**63), RuntimeError)]
)
def test_target_that_is_no_class_is_refused(target, error):
    """Torch's own loss leaves examples of class -100 out without a word."""
    o_Bq, targets_B = draw("cross_entropy", 4, 3)
    targets_B[2] = target
    with pytest.raises(error, match="out of bounds"):
        compute("cross_entropy", o_Bq, targets_B, 0.25)


def test_squared_error_in_place_gives_the_same_bits():
    o_Bq, y_Bq = draw("mse", 33, 9)
    loss, grad_o_Bq = torch.empty((), dtype=torch.float64), torch.empty_like(o_Bq)
    LOSSES["mse"].forward(o_Bq, y_Bq, 1 / 33, grad_o_Bq, torch.empty(33, 1, dtype=torch.float64), loss)
    loss_in_place, grad_in_place_Bq = compute("mse", o_Bq, y_Bq, 1 / 33)
    assert torch.equal(loss_in_place, loss)
    assert torch.equal(grad_in_place_Bq, grad_o_Bq)


def test_squared_error_without_error_is_zero():
    o_Bq, _ = draw("mse", 4, 3)
    loss, grad_o_Bq = compute("mse", o_Bq, o_Bq.clone(), 0.25)
    assert loss.item() == 0.0
    assert not grad_o_Bq.any()


@names
@pytest.mark.parametrize(("N", "q"), [(2000, 50), (500, 1000), (70_000, 2)])
def test_single_precision_is_as_good_as_single_precision_allows(name, N, q):
    """One float32 dot product over all outputs, as the squared error once had it, was off by 4e-4."""
    o_Nq, targets = draw(name, N, q)
    expected_loss, expected_grad_Nq = compute_with_torch(name, o_Nq, targets)
    targets = targets if LOSS_RECORDS[name].has_class_targets else targets.float()
    loss, grad_o_Nq = compute(name, o_Nq.float(), targets, 1 / N)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    assert (grad_o_Nq - expected_grad_Nq).norm() <= 1e-6 * expected_grad_Nq.norm()
