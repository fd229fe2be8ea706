"""Shapes: B examples, I features in, O features out, q outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile

from partition.graph import LOSS_RECORDS
from partition.ops import ACTIVATIONS, functional
from partition.ops.losses import summed_loss, summed_weight

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 5, 3), (4, 3, 9)]


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("B", "I", "O"), SHAPES)
def test_gradcheck_of_affine(B, I, O, has_bias):  # noqa: E741
    bias = [leaf(O)] if has_bias else []
    assert gradcheck(functional.affine, [leaf(B, I), leaf(O, I), *bias])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(1,), (1, 7), (5, 3), (2, 3, 2)])
def test_gradcheck_of_activations_away_from_kinks(name, shape):
    z = leaf(*shape)
    with torch.no_grad():
        z += 0.1 * z.sign()
    assert gradcheck(lambda z: functional.activate(name, z), [z])


@pytest.mark.parametrize(("B", "q"), [(1, 1), (1, 5), (7, 3)])
def test_gradcheck_of_losses(B, q):
    targets_B, targets_Bq = torch.randint(q, (B,)), torch.randn(B, q, dtype=torch.float64)
    assert gradcheck(lambda o_Bq: functional.cross_entropy(o_Bq, targets_B), [leaf(B, q)])
    assert gradcheck(lambda o_Bq: functional.mean_squared_error(o_Bq, targets_Bq), [leaf(B, q)])


@pytest.mark.parametrize("wanted", range(3))
def test_affine_computes_only_the_gradient_that_is_wanted(wanted, assert_equal_in_norm):
    inputs = [leaf(4, 5), leaf(3, 5), leaf(3)]
    (expected,) = torch.autograd.grad(torch.nn.functional.linear(*inputs).square().sum(), inputs[wanted])
    inputs = [tensor.detach().requires_grad_(index == wanted) for index, tensor in enumerate(inputs)]
    functional.affine(*inputs).square().sum().backward()
    assert [tensor.grad is not None for tensor in inputs] == [index == wanted for index in range(3)]
    assert_equal_in_norm(inputs[wanted].grad, expected)


def test_network_is_the_network_of_torch(assert_equal_in_norm):
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 4, bias=False)).double()
    x_BI, targets_B = torch.randn(5, 6, dtype=torch.float64), torch.randint(4, (5,))
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x_BI), targets_B), [*model.parameters()])
    z_BO = functional.affine(x_BI, model[0].weight, model[0].bias)
    o_Bq = functional.affine(functional.activate("gelu", z_BO), model[2].weight)
    gradients = torch.autograd.grad(functional.cross_entropy(o_Bq, targets_B), [*model.parameters()])
    for gradient, reference in zip(gradients, expected, strict=True):
        assert_equal_in_norm(gradient, reference)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_strided_views_give_the_bits_of_contiguous_tensors(name):
    """A vectorised kernel rounds differently over a stride, so views are copied at the door."""
    z_BO, grad_h_BO = leaf(1001, 8), torch.randn(8, 1001, dtype=torch.float64).t()
    (strided_BO,) = torch.autograd.grad(functional.activate(name, z_BO.t()[::2].t()), z_BO, grad_h_BO[:, ::2])
    z_even_BO = z_BO[:, ::2].detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    grad_even_BO = grad_h_BO[:, ::2].contiguous()
    (contiguous_BO,) = torch.autograd.grad(functional.activate(name, z_even_BO), z_even_BO, grad_even_BO)
    assert torch.equal(strided_BO[:, ::2], contiguous_BO)


def test_nothing_of_the_user_is_overwritten():
    o_Bq, targets_Bq, grad_Bq = leaf(4, 3), torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3).double()
    before = [tensor.detach().clone() for tensor in (o_Bq, targets_Bq, grad_Bq)]
    functional.mean_squared_error(o_Bq, targets_Bq).backward()
    functional.activate("silu", o_Bq).backward(grad_Bq)
    assert all(torch.equal(now, then) for now, then in zip((o_Bq, targets_Bq, grad_Bq), before, strict=True))


def test_a_kept_graph_can_be_walked_twice():
    o_Bq = leaf(4, 3)
    loss = functional.cross_entropy(o_Bq, torch.tensor([0, 1, 2, 0]))
    first, second = (torch.autograd.grad(loss, o_Bq, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("B", "I", "O"), SHAPES)
def test_gradgradcheck_of_affine(B, I, O, has_bias):  # noqa: E741
    bias = [leaf(O)] if has_bias else []
    assert gradgradcheck(functional.affine, [leaf(B, I), leaf(O, I), *bias])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(1,), (5, 3), (2, 3, 2)])
def test_gradgradcheck_of_activations_away_from_kinks(name, shape):
    z = leaf(*shape)
    with torch.no_grad():
        z += 0.1 * z.sign()
    assert gradgradcheck(lambda z: functional.activate(name, z), [z])


@pytest.mark.parametrize(("B", "q"), [(1, 1), (1, 5), (7, 3)])
def test_gradgradcheck_of_losses(B, q):
    targets_B, targets_Bq = torch.randint(q, (B,)), torch.randn(B, q, dtype=torch.float64)
    assert gradgradcheck(lambda o_Bq: functional.cross_entropy(o_Bq, targets_B), [leaf(B, q)])
    assert gradgradcheck(lambda o_Bq: functional.mean_squared_error(o_Bq, targets_Bq), [leaf(B, q)])


@pytest.mark.parametrize(
    "record",
    [
        *LOSS_RECORDS.values(),
        replace(LOSS_RECORDS["cross_entropy"], label_smoothing=0.1, workspace_columns=2),
        replace(LOSS_RECORDS["cross_entropy"], class_weights=(0.5, 2.0, 1.0), workspace_columns=2),
        replace(LOSS_RECORDS["huber"], delta=0.3),
    ],
)
def test_gradgradcheck_of_losses_with_their_options(record, assert_equal_in_norm):
    targets = torch.randint(3, (7,)) if record.has_class_targets else torch.rand(7, 3, dtype=torch.float64)
    o_Bq = leaf(7, 3)
    assert gradcheck(lambda o_Bq: functional.loss(record, o_Bq, targets), [o_Bq])
    assert gradgradcheck(lambda o_Bq: functional.loss(record, o_Bq, targets), [o_Bq])
    expected = summed_loss(record, o_Bq, targets) / summed_weight(record, targets.cpu().numpy())
    assert_equal_in_norm(functional.loss(record, o_Bq, targets).detach(), expected.detach())


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"relu"}))
def test_the_gradient_of_the_gradient_of_the_gradient(name):
    """The backward of the backward is differentiable itself: third and fourth derivatives are those of torch."""
    plain = {
        "identity": lambda z: z,
        "sin": torch.sin,
        "gelu_tanh": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    }
    phi = plain.get(name) or getattr(torch.nn.functional, name)
    x_BI, weight_OI, bias_O, targets_B = leaf(4, 3), leaf(5, 3), leaf(5), torch.tensor([0, 4, 2, 1])

    def by_hand():
        h_BO = functional.activate(name, functional.affine(x_BI, weight_OI, bias_O))
        return functional.cross_entropy(h_BO, targets_B)

    def by_torch():
        return torch.nn.functional.cross_entropy(phi(torch.nn.functional.linear(x_BI, weight_OI, bias_O)), targets_B)

    actual, expected = by_hand(), by_torch()
    for _ in range(4):
        found = torch.autograd.grad(actual, [x_BI, weight_OI, bias_O], create_graph=True)
        wanted = torch.autograd.grad(expected, [x_BI, weight_OI, bias_O], create_graph=True)
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).detach().norm() <= 1e-11 * max(other.detach().norm().item(), 1.0)
        actual, expected = (sum(grad.pow(3).sum() for grad in grads) for grads in (found, wanted))


def test_a_penalty_on_the_gradient_of_the_loss_counts(assert_equal_in_norm):
    """With torch's `once_differentiable` this gradient came back as a constant, since dJ/dL = 1 is one."""
    o_Bq, targets_B = leaf(2, 3), torch.tensor([0, 1])
    (grad,) = torch.autograd.grad(functional.cross_entropy(o_Bq, targets_B), o_Bq, create_graph=True)
    (plain,) = torch.autograd.grad(torch.nn.functional.cross_entropy(o_Bq, targets_B), o_Bq, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), o_Bq)
    (expected,) = torch.autograd.grad(plain.square().sum(), o_Bq)
    assert_equal_in_norm(second, expected)


def test_hessian_of_a_certain_prediction_is_zero():
    """At p = 1 and p = 0 exactly: the gradient no longer tells the class, and need not."""
    o_Bq = torch.tensor([[0.0, 1000.0, -1000.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(functional.cross_entropy(o_Bq, torch.tensor([1])), o_Bq, create_graph=True)
    (second,) = torch.autograd.grad(grad[0, 0], o_Bq)
    assert torch.equal(second, torch.zeros_like(second))


def network_loss(x_BI, weights, targets_B):
    h_BO = functional.activate("gelu", functional.affine(x_BI, weights[0], weights[1]))
    return functional.cross_entropy(functional.affine(h_BO, weights[2]), targets_B)


def test_a_first_derivative_keeps_no_more_and_makes_no_further_nodes():
    """Kept: input, weight and what the activation needs of each, the loss's gradient; targets are the caller's."""
    x_BI, targets_B = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    weights = [leaf(5, 4), leaf(5), leaf(3, 5)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = network_loss(x_BI, weights, targets_B)
    own = {t.data_ptr(): t.numel() for t in kept}
    for given in (x_BI, targets_B, *weights):
        own.pop(given.data_ptr(), None)
    assert sorted(own.values()) == sorted([6 * 5, 6 * 5, 6 * 3])  # z, h, grad_o
    with profile(activities=[ProfilerActivity.CPU]) as session:
        loss.backward()
    names = [event.name for event in session.events()]
    assert "_AffineBackward" in names
    assert not [name for name in names if name in ("_InputGrad", "_WeightGrad", "_BiasGrad", "_ActivationGrad")]
    assert not [name for name in names if name == "aten::zeros"], "no cotangent of the loss's gradient is made up"


def test_the_probe_sees_the_nodes_of_a_second_derivative():
    """Without this the test above could not fail."""
    x_BI, targets_B = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    weights = [leaf(5, 4), leaf(5), leaf(3, 5)]
    loss = network_loss(x_BI, weights, targets_B)
    with profile(activities=[ProfilerActivity.CPU]) as session:
        torch.autograd.grad(loss, weights, create_graph=True)
    names = {event.name for event in session.events()}
    assert {"_InputGrad", "_WeightGrad", "_BiasGrad", "_ActivationGrad"} <= names
