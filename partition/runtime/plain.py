"""A network in plain torch, for automatic differentiation: what `to_torch()` gives and fully sharded training runs.

Of a plain network a Sequential of Linear and activations, of blocks one of blocks whose parts have their own names:
`3.norm.weight`, `3.up.weight`, as in a checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from partition.graph import Layer, Network, Unit
from partition.graph.layers import Dropout, Gate, Norm, Part

_M = TypeVar("_M", bound=nn.Module)


class Sine(nn.Module):
    """The sine, which torch has as a function only."""

    def forward(self, z: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return torch.sin(z)


class Residual(nn.Sequential):
    """x + branch(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        y = x
        for module in self:
            y = module(y)
        return x + y


class SwiGLU(nn.Module):
    """silu(gate(x)) * up(x)."""

    def __init__(self, gate: nn.Linear, up: nn.Linear) -> None:
        super().__init__()
        self.gate = gate
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., H)."""
        a: Tensor = self.gate(x)
        b: Tensor = self.up(x)
        return nn.functional.silu(a) * b


ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "sin": Sine,
}


def plain_network(network: Network, pairs: Mapping[int, tuple[Tensor, Tensor | None]]) -> nn.Sequential:
    """The network with copies of its parameters, weight and bias by the index of their part."""
    modules: list[nn.Module] = []
    for unit in network.layers:
        if isinstance(unit, Layer):
            modules += [module for _, module in _named(unit, pairs)]
        else:
            modules.append(_block(unit, pairs))
    return nn.Sequential(*modules)


def unit_modules(model: nn.Sequential, network: Network) -> list[nn.Module]:
    """The modules with the parameters of each unit of the network."""
    is_plain = isinstance(network.layers[0], Layer)
    return [module for module in model if not is_plain or isinstance(module, nn.Linear)]


def _block(unit: Unit, pairs: Mapping[int, tuple[Tensor, Tensor | None]]) -> nn.Module:
    named = OrderedDict(one for part in unit.parts for one in _named(part, pairs))
    return Residual(named) if unit.is_residual else nn.Sequential(named)


def _named(part: Part, pairs: Mapping[int, tuple[Tensor, Tensor | None]]) -> Iterator[tuple[str, nn.Module]]:
    match part:
        case Layer():
            yield part.name, _linear(part, pairs)
            if not part.activation.is_identity:
                yield "activation", _activation(part.activation.name)
        case Norm():
            yield part.name, _norm(part, pairs)
        case Gate():
            yield part.name, SwiGLU(_linear(part.gate, pairs), _linear(part.up, pairs))
        case Dropout():
            yield part.name, nn.Dropout(part.rate)


def _linear(layer: Layer, pairs: Mapping[int, tuple[Tensor, Tensor | None]]) -> nn.Linear:
    weight, bias = pairs[layer.index]
    linear = nn.Linear(layer.in_features, layer.out_features, bias=bias is not None, dtype=weight.dtype)
    return _filled(linear, weight, bias)


def _norm(norm: Norm, pairs: Mapping[int, tuple[Tensor, Tensor | None]]) -> nn.Module:
    weight, bias = pairs[norm.index]
    if norm.has_mean:
        return _filled(nn.LayerNorm(norm.features, norm.eps, bias=norm.has_bias, dtype=weight.dtype), weight, bias)
    return _filled(nn.RMSNorm(norm.features, norm.eps, dtype=weight.dtype), weight, bias)


@torch.no_grad()
def _filled(module: _M, weight: Tensor, bias: Tensor | None) -> _M:
    module.to(weight.device)
    for name, parameter in module.named_parameters():
        given = weight if name == "weight" else bias
        assert given is not None, "a bias where the part has one"
        parameter.copy_(given)
    return module


def _activation(name: str) -> nn.Module:
    return nn.GELU(approximate="tanh") if name == "gelu_tanh" else ACTIVATION_MODULES[name]()
