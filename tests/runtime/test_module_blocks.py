"""`build_module` of blocks: the gradients of autograd, fewer bytes kept, derivatives of derivatives, dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partition.config import ModelConfig
from partition.runtime.module import HandWrittenModule, build_module

CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "linear": ({"linear": 5, "activation": "elu"}, {"linear": 4, "activation": "tanh"}),
    "norm first": ({"linear": 5, "norm": "layer_norm"}, {"linear": 4, "norm": "rms_norm", "activation": "leaky_relu"}),
    "residual": ({"residual": {"hidden": 9}}, {"residual": {"hidden": 5, "activation": "tanh"}, "repeat": 2}),
    "pre-norm": (
        {"residual": {"hidden": 9, "norm": "layer_norm"}},
        {"residual": {"norm": "rms_norm", "hidden": 5, "activation": "sin"}, "repeat": 2},
        {"norm": "layer_norm"},
    ),
    "swiglu": (
        {"linear": 6, "activation": "softplus"},
        {"residual": {"norm": "rms_norm", "swiglu": 5}, "repeat": 2},
        {"residual": {"swiglu": 4}},
        {"norm": "rms_norm"},
    ),
    "norms after tanh": (
        {"linear": 6, "activation": "tanh"},
        {"residual": {"norm": "layer_norm", "hidden": 5}},
        {"norm": "rms_norm"},
        {"norm": "layer_norm"},
        {"linear": 4},
        {"residual": {"hidden": 8, "activation": "relu"}},
    ),
}
DROPOUT = (
    {"linear": 8, "dropout": 0.4},
    {"residual": {"norm": "layer_norm", "hidden": 9, "dropout": 0.3}},
    {"residual": {"swiglu": 9, "dropout": 0.3}},
)


def build(blocks: tuple[dict[str, Any], ...], **options: Any) -> HandWrittenModule:
    """In float64, with parameters that are nowhere 0 or 1."""
    model = {"in_features": 7, "out_features": 3, "blocks": blocks, "activation": "gelu", **options}
    module = build_module(ModelConfig.model_validate(model), seed=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return module


def inputs(rows: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None
    assert expected is not None
    assert torch.linalg.vector_norm((actual - expected).detach()) <= 1e-12 * (1 + expected.detach().norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_autograds(case: str, bias: bool) -> None:
    module = build(CASES[case], bias=bias)
    plain, x = module.to_torch(), inputs().requires_grad_()
    other, before = x.detach().clone().requires_grad_(), x.detach().clone()
    y, expected = module(x), plain(other)
    grad = torch.randn_like(expected)
    y.backward(grad)
    expected.backward(grad)
    assert_close(y, expected)
    assert_close(x.grad, other.grad)
    for one, of_torch in zip(module.parameters(), plain.parameters(), strict=True):
        assert_close(one.grad, of_torch.grad)
    with torch.no_grad():
        assert_close(module(x), expected)
    assert torch.equal(x.detach(), before), "the caller's input is left as it is"


@pytest.mark.parametrize("case", ["pre-norm", "swiglu", "norms after tanh"])
def test_gradients_can_be_differentiated(case: str) -> None:
    module = build(CASES[case])
    x, parameters = inputs(2).requires_grad_(), tuple(module.parameters())
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x), (x, *parameters), fast_mode=True)


class PrimitiveNorm(nn.Module):
    """A LayerNorm of primitive operators: the third derivative of torch's own one (2.13) is wrong."""

    def __init__(self, like: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = like.weight, like.bias, like.eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight + self.bias


def test_a_derivative_in_the_input_may_stand_in_the_loss() -> None:
    """u_xx of residual blocks of sines, and its gradient in the weights."""
    module = build((*CASES["pre-norm"], {"linear": 6, "activation": "sin"}))
    plain, found = module.to_torch(), []
    for block in plain:
        if isinstance(getattr(block, "norm", None), nn.LayerNorm):
            block.norm = PrimitiveNorm(block.norm)
    for function in (module, plain):
        x = inputs(4).requires_grad_()
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
        found.append((second[:, 0], *torch.autograd.grad(second[:, 0].square().sum(), tuple(function.parameters()),
                                                         allow_unused=True)))  # fmt: skip
    for one, other in zip(*found, strict=True):
        if one is not None or other is not None:
            zero = torch.zeros(1, dtype=torch.float64)
            difference = (zero if one is None else one) - (zero if other is None else other)
            assert torch.linalg.vector_norm(difference.detach()) <= 1e-10


def bytes_kept(function: nn.Module, x: Tensor) -> int:
    """Of distinct storages that autograd holds between forward and backward, parameters and input apart."""
    kept: dict[int, int] = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *function.parameters())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(x)
    if isinstance(function, HandWrittenModule):
        frame = y.grad_fn.next_functions[0][0].frame  # the view of the logits is the last node
        for tensor in frame.tensors.values():
            if tensor.untyped_storage().data_ptr() not in known:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(kept.values())


@pytest.mark.parametrize(
    ("block", "share"),
    [
        ({"residual": {"norm": "layer_norm", "hidden": 28, "activation": "gelu"}}, 0.56),
        ({"residual": {"norm": "rms_norm", "hidden": 28, "activation": "relu"}}, 1.0),
        ({"residual": {"norm": "layer_norm", "hidden": 28, "activation": "gelu", "dropout": 0.1}}, 0.5),
        ({"residual": {"norm": "rms_norm", "swiglu": 28}}, 0.56),
    ],
)
def test_less_is_kept_than_autograd_keeps(block: dict[str, Any], share: float) -> None:
    """Of blocks whose input and hidden layer are all that stands between forward and backward."""
    module = build(({"linear": 7, "activation": "identity"}, {**block, "repeat": 6}))
    x = inputs(64).requires_grad_()
    ours, autograds = bytes_kept(module, x), bytes_kept(module.to_torch(), x)
    assert ours <= share * autograds


# Dropout


def test_dropout_gives_the_gradients_of_its_own_masks() -> None:
    """Against the same network operator by operator, whose masks are constants to autograd."""
    module, x = build(DROPOUT), inputs().requires_grad_()
    torch.autograd.gradcheck(lambda x: repeated(module, x), (x,))
    first = torch.autograd.grad(repeated(module, x).sum(), tuple(module.parameters()))
    second = torch.autograd.grad(repeated(module, x).sum(), tuple(module.parameters()), create_graph=True)
    for one, other in zip(first, second, strict=True):
        assert_close(one, other)


def repeated(module: HandWrittenModule, x: Tensor) -> Tensor:
    """A call with the masks of the first step, however often."""
    module.step = 0
    y: Tensor = module(x)
    return y


def test_every_call_in_training_drops_others_and_none_in_evaluation() -> None:
    module, x = build(DROPOUT), inputs()
    one, other = module(x), module(x)
    assert not torch.equal(one, other)
    assert torch.equal(repeated(module, x), one)
    with torch.no_grad():
        assert torch.equal(repeated(module, x), one), "dropped without gradients too, as in torch"
    module.eval()
    expected = module.to_torch()(x)
    assert_close(module(x), expected)
    with torch.no_grad():
        assert_close(module(x), expected)
    assert module.step == 1


def test_another_seed_drops_others() -> None:
    config = ModelConfig.model_validate({"in_features": 7, "out_features": 3, "blocks": DROPOUT})
    one, other = build_module(config, seed=0), build_module(config, seed=1)
    other.load_state_dict(one.state_dict())
    x = inputs().float()
    assert not torch.equal(one(x), other(x))
