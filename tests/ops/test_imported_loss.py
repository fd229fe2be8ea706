"""Losses of the user's, by import path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from partition.errors import PartitionError
from partition.graph import LOSS_RECORDS
from partition.ops import functional
from partition.ops.imported_loss import import_function, imported_loss, summed

HERE = "tests.ops.test_imported_loss"


def mean_of_cubes(outputs: Tensor, targets: Tensor) -> Tensor:
    """A mean over examples and outputs."""
    return (outputs - targets).abs().pow(3).mean()


def cubes_of_each(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same, example by example."""
    return (outputs - targets).abs().pow(3).mean(1)


def no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Two numbers, whatever the examples."""
    return torch.stack([outputs.mean(), targets.mean()])


@pytest.mark.parametrize("name", ["mean_of_cubes", "cubes_of_each"])
def test_uneven_microbatches_add_up_to_the_minibatch(name, assert_equal_in_norm):
    o_Nq, y_Nq = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    leaf_Nq = o_Nq.clone().requires_grad_()
    expected = mean_of_cubes(leaf_Nq, y_Nq)
    expected.backward()
    loss, total, grads = imported_loss(f"{HERE}:{name}"), torch.zeros((), dtype=torch.float64), []
    for o_Bq, y_Bq in zip(o_Nq.split([4, 2, 1]), y_Nq.split([4, 2, 1]), strict=True):
        grad_Bq, value = torch.full_like(o_Bq, torch.nan), o_Bq.new_empty(())
        with torch.no_grad():
            loss.forward(o_Bq, y_Bq, 1 / 7, grad_Bq, None, value)
        grads.append(grad_Bq)
        total += value
    assert_equal_in_norm(total, expected.detach())
    assert_equal_in_norm(torch.cat(grads), leaf_Nq.grad)


def test_tangent_is_the_hessian_times_a_direction(assert_equal_in_norm):
    path = f"{HERE}:mean_of_cubes"
    o_Bq, y_Bq, u_Bq = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    _, expected = torch.autograd.functional.hvp(lambda o: 0.2 * summed(path, o, y_Bq), o_Bq, u_Bq)
    imported_loss(path).tangent(o_Bq, y_Bq, 0.2, u_Bq, None, None, o_Bq.new_empty(()))
    assert_equal_in_norm(u_Bq, expected)


def test_the_functional_form_is_the_function():
    record = replace(LOSS_RECORDS["mse"], name=f"{HERE}:cubes_of_each", is_imported=True)
    o_Bq, y_Bq = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.allclose(functional.loss(record, o_Bq, y_Bq), mean_of_cubes(o_Bq, y_Bq))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        (f"{HERE}:no_such_function", "cannot be imported: AttributeError"),
        (f"{HERE}:HERE", "is of type str; name a function"),
    ],
)
def test_what_is_no_function_is_refused(path, message):
    with pytest.raises(PartitionError, match=message):
        import_function(path)


def test_what_is_no_loss_is_refused_with_its_shape():
    with pytest.raises(PartitionError, match=r"gives \(2,\) for 5 examples; return their mean"):
        summed(f"{HERE}:no_loss", torch.ones(5, 3), torch.ones(5, 3))
    with pytest.raises(PartitionError, match=r"fails on outputs \(5, 3\) and targets \(4, 2\)"):
        summed(f"{HERE}:mean_of_cubes", torch.ones(5, 3), torch.ones(4, 2))


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    """A number that does not know where it comes from."""
    return (outputs - targets).detach().square().mean()


def of_targets_alone(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss with a derivative, not in the outputs."""
    del outputs
    return torch.ones_like(targets, requires_grad=True).mean()


def already_differentiated(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose graph is gone."""
    value = (outputs - targets).square().mean()
    value.backward()
    return value


def leaving(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that ends the process."""
    del outputs, targets
    raise SystemExit(7)


def mean_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that is linear in the outputs."""
    return (outputs - targets).mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detached", "does not depend on the outputs, or has no derivative"),
        ("of_targets_alone", "cannot be differentiated: RuntimeError"),
        ("already_differentiated", "cannot be differentiated: RuntimeError"),
        ("leaving", "fails on outputs .*: SystemExit: 7; correct it"),
    ],
)
def test_what_cannot_be_differentiated_is_refused_in_one_line(name, message):
    o_Bq, y_Bq, loss = torch.ones(5, 3), torch.zeros(5, 3), imported_loss(f"{HERE}:{name}")
    for call in (
        lambda: loss.forward(o_Bq, y_Bq, 0.2, torch.empty(5, 3), None, torch.empty(())),
        lambda: loss.tangent(o_Bq, y_Bq, 0.2, torch.ones(5, 3), None, None, torch.empty(())),
    ):
        with pytest.raises(PartitionError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_tangent_of_a_linear_loss_is_zero():
    u_Bq = torch.randn(5, 3)
    imported_loss(f"{HERE}:mean_error").tangent(torch.ones(5, 3), torch.zeros(5, 3), 0.2, u_Bq, None, None, u_Bq.sum())
    assert not u_Bq.any()
