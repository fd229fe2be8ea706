"""The network as a torch.nn.Module."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import profile

from partition.config import ModelConfig
from partition.errors import PartitionError
from partition.runtime import HandWrittenModule, build_module, from_torch

ACTIVATIONS = ["identity", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu"]


def model(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"in_features": 5, "hidden_features": (7, 3), "out_features": 4, "activation": "gelu", **changes}
    )


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    distance = torch.linalg.vector_norm((one - other).detach())
    return distance.item() / max(torch.linalg.vector_norm(other.detach()).item(), 1e-300)


def test_other_number_formats_are_refused() -> None:
    with pytest.raises(PartitionError, match=r"dtype torch.bfloat16: .* torch.float32 or torch.float64"):
        build_module(model(), dtype=torch.bfloat16)
    with pytest.raises(PartitionError, match=r"dtype torch.float16: "):
        from_torch(nn.Sequential(nn.Linear(3, 2, dtype=torch.float16)))


@pytest.mark.parametrize("rows", [1, 6, 13])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_the_plain_sequential(activation: str, bias: bool, rows: int) -> None:
    module = build_module(model(activation=activation, bias=bias), dtype=torch.float64)
    reference = module.to_torch()
    x, grad = torch.randn(rows, 5, dtype=torch.float64), torch.randn(rows, 4, dtype=torch.float64)
    own_x, torchs_x = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    y, expected = module(own_x), reference(torchs_x)
    y.backward(grad)
    expected.backward(grad)
    pairs = [(own_x, torchs_x), *zip(module.parameters(), reference.parameters(), strict=True)]
    assert relative(y, expected) <= 1e-12
    for one, other in pairs:
        assert one.grad is not None
        assert other.grad is not None
        assert relative(one.grad, other.grad) <= 1e-12


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "relu"])
def test_gradcheck(activation: str) -> None:
    module = build_module(model(activation=activation), dtype=torch.float64)
    parameters = tuple(module.parameters())
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))


def test_leading_dimensions_and_no_grad_give_the_same_logits() -> None:
    module = build_module(model())
    x = torch.randn(2, 3, 5)
    with torch.no_grad():
        without = module(x)
    assert without.shape == (2, 3, 4)
    assert torch.equal(without, module(x))


def test_wrong_width_is_refused_with_both_figures() -> None:
    with pytest.raises(PartitionError, match=r"takes \(..., 5\) inputs, got \(2, 6\)"):
        build_module(model())(torch.randn(2, 6))


def test_second_backward_of_a_retained_graph_gives_the_same_gradients() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5)).sum()
    once = torch.autograd.grad(y, list(module.parameters()), retain_graph=True)
    twice = torch.autograd.grad(y, list(module.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


def test_weight_changed_before_the_backward_is_noticed() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5)).sum()
    with torch.no_grad():
        next(module.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_shared_and_expanded_output_gradients_are_left_alone() -> None:
    module = build_module(model())
    y = module(torch.randn(2, 5))
    grad = torch.ones(2, 4)
    y.backward(grad)
    assert torch.equal(grad, torch.ones(2, 4))


def test_seed_decides_and_equal_layers_differ() -> None:
    config = model(hidden_features=(5, 5), out_features=5)
    one, same, other = build_module(config, 1), build_module(config, 1), build_module(config, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.pairs()[0][0], other.pairs()[0][0])
    assert not torch.equal(one.pairs()[0][0], one.pairs()[1][0])


def test_penalty_is_half_lambda_times_squared_weights() -> None:
    module = build_module(model(l2_penalty=0.5))
    squares = sum(float(weight.detach().square().sum()) for weight, _ in module.pairs())
    assert module.penalty().item() == pytest.approx(0.25 * squares, rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_round_trip_through_torch(activation: str) -> None:
    module = build_module(model(activation=activation), seed=3)
    again = from_torch(module.to_torch())
    assert isinstance(again, HandWrittenModule)
    assert again.config.activation == activation
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "holds nothing"),
        ([nn.Linear(2, 2), nn.ReLU()], "holds Linear, ReLU"),
        ([nn.ReLU(), nn.Linear(2, 2)], "holds ReLU, Linear"),
        ([nn.Linear(2, 2), nn.Softsign(), nn.Linear(2, 2)], "Softsign"),
        ([nn.Linear(2, 2), nn.LeakyReLU(0.2), nn.Linear(2, 2)], "negative_slope=0.2"),
        ([nn.Linear(2, 2), nn.Softplus(beta=2.0), nn.Linear(2, 2)], "beta=2.0"),
        ([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)], "one kind of activation"),
        ([nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)], "a bias in all layers or in none"),
    ],
)
def test_what_has_no_counterpart_is_refused(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        from_torch(nn.Sequential(*modules))


def test_gradcheck_of_relu_away_from_its_kink() -> None:
    module = build_module(model(activation="relu"), dtype=torch.float64)
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    hidden = [step(x) for step in (module.to_torch()[:1], module.to_torch()[:3])]
    assert min(float(z.detach().abs().min()) for z in hidden) > 1e-3
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (2, 1, 3)], ids=str)
def test_every_leading_shape_is_that_of_the_sequential(lead: tuple[int, ...]) -> None:
    module = build_module(model(), dtype=torch.float64)
    x = torch.randn(*lead, 5, dtype=torch.float64, requires_grad=True)
    y, expected = module(x), module.to_torch()(x)
    assert y.shape == expected.shape
    (one,), (other,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x)
    assert one.shape == x.shape
    assert relative(one, other) <= 1e-12


@pytest.mark.parametrize("has_grad", [True, False])
def test_no_examples_give_no_logits(has_grad: bool) -> None:
    with torch.set_grad_enabled(has_grad):
        assert build_module(model())(torch.empty(0, 5)).shape == (0, 4)


def test_frozen_parameters_get_no_gradient() -> None:
    module = build_module(model())
    module.pairs()[0][0].requires_grad_(False)
    module(torch.randn(2, 5)).sum().backward()
    assert [weight.grad is None for weight, _ in module.pairs()] == [True, False, False]


def test_inputs_are_left_alone() -> None:
    module, x = build_module(model()), torch.randn(2, 5)
    before = x.clone()
    module(x).sum().backward()
    with torch.no_grad():
        module(x)
    assert torch.equal(x, before)


def test_input_changed_before_the_backward_is_noticed() -> None:
    module, x = build_module(model()), torch.randn(2, 5)
    y = module(x).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_gradients_of_two_forwards_add_up() -> None:
    """Frames of one module do not share tensors."""
    module = build_module(model(), dtype=torch.float64)
    x, other_x = torch.randn(2, 3, 5, dtype=torch.float64)
    parameters = list(module.parameters())
    apart = [torch.autograd.grad(module(each).sum(), parameters) for each in (x, other_x)]
    together = torch.autograd.grad(module(x).sum() + module(other_x).sum(), parameters)
    for one, first, second in zip(together, *apart, strict=True):
        assert relative(one, first + second) <= 1e-12


@pytest.mark.parametrize("is_constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_penalty_on_the_gradient_is_differentiated(activation: str, is_constant: bool) -> None:
    """A penalty on gradients must not be left out without a word, where the incoming gradient is a constant either."""
    module = build_module(model(activation=activation), dtype=torch.float64)
    reference, x = module.to_torch(), torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    for network in (module, reference):
        y = network(x)
        loss = y.sum() if is_constant else y.square().sum()
        (loss + torch.autograd.grad(loss, x, create_graph=True)[0].square().sum()).backward()
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        assert one.grad is not None
        assert (one.grad - (torch.zeros_like(one) if other.grad is None else other.grad)).norm() <= 1e-10


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "gelu_tanh", "silu"])
def test_second_derivative_in_the_input_and_its_gradient_in_the_weights(activation: str) -> None:
    """u_xx of a small network u(x), as in a residual of the heat equation: equal to autograd's to 1e-8."""
    module = build_module(model(in_features=1, hidden_features=(16, 16), out_features=1, activation=activation),
                          dtype=torch.float64)  # fmt: skip
    with torch.no_grad():
        for _, bias in module.pairs():
            bias.normal_(generator=torch.Generator().manual_seed(1))
    found = []
    for network in (module, module.to_torch()):
        x = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1).requires_grad_(True)
        (u_x,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        gradient = torch.autograd.grad((u_xx + torch.sin(x)).square().mean(), list(network.parameters()),
                                       allow_unused=True)  # fmt: skip
        found.append([u_xx.detach(), *(grad for grad in gradient if grad is not None and grad.any())])
    own, torchs = found
    assert len(own) == len(torchs) == 6, "all but the last bias, which u_xx does not depend on"
    for one, other in zip(own, torchs, strict=True):
        assert relative(one, other) <= 1e-8


def test_gradgradcheck() -> None:
    module = build_module(model(hidden_features=(3,)), dtype=torch.float64)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x), (x, *module.parameters()))


def test_derivatives_of_frozen_weights_and_constant_inputs() -> None:
    """Only what is wanted is differentiated, with create_graph=True too."""
    module = build_module(model(), dtype=torch.float64)
    module.pairs()[0][0].requires_grad_(False)
    reference, x = module.to_torch(), torch.randn(3, 5, dtype=torch.float64)
    reference[0].weight.requires_grad_(False)
    seconds = []
    for network in (module, reference):
        wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
        grads = torch.autograd.grad(network(x).square().sum(), wanted, create_graph=True)
        seconds.append(torch.autograd.grad(sum(grad.square().sum() for grad in grads), wanted))
    for one, other in zip(*seconds, strict=True):
        assert relative(one, other) <= 1e-10


def kept_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that live on after a forward, of the allocator's own counting."""
    with profile(profile_memory=True) as session:
        output = forward()
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert output.requires_grad
    return sum(event.nbytes() for event in events)


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu", "tanh", "sigmoid"])
def test_one_tensor_per_layer_is_kept(activation: str) -> None:
    """The pre-activation or the output of each hidden layer, and the logits that the caller holds."""
    module, x = build_module(model(activation=activation, hidden_features=(64, 64, 64))), torch.randn(100, 5)
    assert kept_bytes(lambda: module(x)) == 100 * (3 * 64 + 4) * 4


def test_autograd_keeps_two_for_gelu() -> None:
    """What the test above would find without the hand-written backward."""
    module, x = build_module(model(hidden_features=(64, 64, 64))).to_torch(), torch.randn(100, 5)
    assert kept_bytes(lambda: module(x)) == 100 * (2 * 3 * 64 + 4) * 4


def test_nothing_is_kept_without_gradients() -> None:
    module, x = build_module(model(hidden_features=(64, 64))), torch.randn(100, 5)
    with torch.no_grad(), profile(profile_memory=True) as session:
        output = module(x)
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert sum(event.nbytes() for event in events) == output.numel() * 4


def test_a_step_leaves_one_set_of_gradients() -> None:
    """As autograd does; a gradient that someone else still holds would be copied."""
    module = build_module(model(hidden_features=(64, 64)))
    x = torch.randn(10, 5)
    with profile(profile_memory=True) as session:
        module(x).sum().backward()
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert sum(event.nbytes() for event in events) == 4 * sum(parameter.numel() for parameter in module.parameters())


def test_to_torch_copies() -> None:
    module = build_module(model())
    with torch.no_grad():
        module.to_torch()[0].weight.zero_()
    assert module.pairs()[0][0].abs().min() > 0


@pytest.mark.parametrize("seed", ["x", -1, 1.0, math.nan, None, True, 2**40, [1]])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    """A text ended in a TypeError of Python's, and -1 was taken, which training.seed refuses."""
    with pytest.raises(PartitionError, match=r"^seed .*: give a whole number from 0 to 1099511627775$"):
        build_module(model(), seed=seed)


def test_a_seed_of_numpy_is_the_same_seed() -> None:
    own, numpys = (build_module(model(), seed=seed).weight0 for seed in (3, np.int64(3)))  # type: ignore[arg-type]
    assert torch.equal(own, numpys)


@pytest.mark.parametrize("config", [None, {"in_features": 5}, "model.yaml", SimpleNamespace(model=model())])
def test_a_model_is_a_model_section(config: Any) -> None:
    with pytest.raises(PartitionError, match=r"^build_module takes a ModelConfig, got .*; give .*config\.model"):
        build_module(config)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("x", "takes a torch.Tensor, got str; give torch.as_tensor"),
        (np.zeros((2, 5)), "takes a torch.Tensor, got ndarray"),
        (torch.zeros(()), r"takes \(..., 5\) inputs, got \(\)"),
        (
            torch.zeros(2, 5, dtype=torch.float64),
            "in torch.float32 on cpu, its input in torch.float64 on cpu; give",
        ),
        (torch.zeros(2, 5, dtype=torch.int64), "its input in torch.int64"),
        (torch.zeros(2, 5, device="meta"), "its input in torch.float32 on meta"),
        (torch.zeros(2, 5).to_sparse(), "takes dense inputs, got torch.sparse_coo"),
    ],
)
def test_an_input_is_a_tensor_of_the_modules_kind(x: Any, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        build_module(model())(x)


def test_a_module_converted_to_bfloat16_is_refused_as_one_built_in_it() -> None:
    with pytest.raises(PartitionError, match=r"^dtype torch.bfloat16: "):
        build_module(model()).to(torch.bfloat16)(torch.zeros(2, 5, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "takes a torch.nn.Sequential, got NoneType"),
        ([nn.Linear(2, 2)], "takes a torch.nn.Sequential, got list"),
        (nn.Linear(2, 2), "takes a torch.nn.Sequential, got Linear"),
        (nn.Sequential(nn.LazyLinear(2)), "the Sequential holds LazyLinear"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "holds ParametrizedLinear"),
    ],
)
def test_from_torch_takes_plain_layers_in_a_sequential(given: Any, message: str) -> None:
    """A parametrised weight was copied as it was at that moment, without what made it."""
    with pytest.raises(PartitionError, match=message):
        from_torch(given)


def test_from_torch_refuses_what_a_copy_would_lose() -> None:
    """A layer that stands twice became two, and hooks were gone."""
    shared, hooked = nn.Linear(2, 2), nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(PartitionError, match="holds one Linear twice"):
        from_torch(nn.Sequential(shared, nn.ReLU(), shared))
    with pytest.raises(PartitionError, match="layers with forward hooks"):
        from_torch(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), hooked))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("transform", [
    lambda of, x: torch.func.vmap(of)(x),
    lambda of, x: torch.func.grad(lambda one: of(one).sum())(x),
    lambda of, x: torch.func.jvp(of, (x,), (x,)),
    lambda of, x: torch.func.hessian(lambda one: of(one).sum())(x),
])  # fmt: skip
def test_transforms_of_functions_are_refused_in_one_line(transform: Any) -> None:
    with pytest.raises(PartitionError, match=r"torch.func .* does not pass through; use torch.autograd.grad") as caught:
        transform(build_module(model()), torch.zeros(2, 5))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_from_torch_refuses_layers_without_features() -> None:
    with pytest.raises(PartitionError, match="features go from 1 to 16777216"):
        from_torch(nn.Sequential(nn.Linear(0, 2)))


def test_from_torch_copies_format_and_values() -> None:
    sequential = nn.Sequential(nn.Linear(3, 2, dtype=torch.float64), nn.Tanh(), nn.Linear(2, 4, dtype=torch.float64))
    module, x = from_torch(sequential), torch.randn(5, 3, dtype=torch.float64)
    assert relative(module(x), sequential(x)) <= 1e-12
    sequential[0].weight.data.zero_()
    assert module.pairs()[0][0].abs().min() > 0


@pytest.mark.parametrize("sizes", [((3, 4),), ((3, 4), (4, 2))], ids=["one", "two"])
def test_linear_layers_in_a_row_have_the_identity_between(sizes: tuple[tuple[int, int], ...]) -> None:
    assert from_torch(nn.Sequential(*(nn.Linear(*size) for size in sizes))).config.activation == "identity"


def test_widths_that_do_not_meet_are_refused() -> None:
    with pytest.raises(PartitionError):
        from_torch(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(1, 2)))


@pytest.mark.parametrize("is_pickled", [False, True])
def test_copies_compute_the_same(is_pickled: bool) -> None:
    module, x = build_module(model()), torch.randn(2, 5)
    again = pickle.loads(pickle.dumps(module)) if is_pickled else copy.deepcopy(module)
    assert torch.equal(again(x), module(x))


def test_gradients_of_the_penalty_are_lambda_times_the_weights() -> None:
    module = build_module(model(l2_penalty=0.5), dtype=torch.float64)
    module.penalty().backward()
    for weight, bias in module.pairs():
        assert weight.grad is not None
        assert bias is not None
        assert bias.grad is None
        assert relative(weight.grad, 0.5 * weight) <= 1e-12
