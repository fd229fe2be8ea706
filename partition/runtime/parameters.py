"""Parameters, and what they begin with: drawn layer by layer from the experiment's seed, the same on any split.

he_normal, he_uniform            variance gain² / in_features, with the gain of the layer's activation (He et al. 2015)
lecun_normal, lecun_uniform      variance 1 / in_features (LeCun et al. 1998)
xavier_normal, xavier_uniform    variance 2 / (in_features + out_features) (Glorot and Bengio 2010)
torch                            as torch.nn.Linear: weights and biases uniform within 1 / sqrt(in_features)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from partition.graph import Category
from partition.graph.layers import Layer, Norm, Weighted
from partition.runtime.device import TensorSource

LAYERS_PER_SEED = 2**20
"""Seeds of successive experiments lie this far apart, so that no two layers of two experiments share one."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of one layer, or of one norm, whose weight has one dimension, and their gradients."""

    weight_OI: Tensor
    grad_weight_OI: Tensor
    bias_O: Tensor | None
    grad_bias_O: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        """Weight before bias."""
        return [tensor for tensor in (self.weight_OI, self.bias_O) if tensor is not None]


def take_parameters(layer: Weighted, source: TensorSource, dtype: torch.dtype | None = None) -> Parameters:
    """Uninitialised parameters and gradients of a layer or norm; the parameters take part in autograd."""
    shape, name = layer.weight_shape, f"layer {layer.index}"
    weight = source.take(shape, Category.PARAMETERS, f"weight of {name}", dtype).requires_grad_(True)
    grad_weight = weight.grad = source.take(shape, Category.GRADIENTS, f"weight gradient of {name}", dtype)
    bias = grad_bias = None
    if layer.has_bias:
        bias = source.take(shape[:1], Category.PARAMETERS, f"bias of {name}", dtype).requires_grad_(True)
        grad_bias = bias.grad = source.take(shape[:1], Category.GRADIENTS, f"bias gradient of {name}", dtype)
    return Parameters(weight_OI=weight, grad_weight_OI=grad_weight, bias_O=bias, grad_bias_O=grad_bias)


@torch.no_grad()
def initialise(layers: Iterable[Weighted], parameters: dict[int, Parameters], seed: int) -> None:
    """Weights as the layer's `init` says, biases zero except torch's; a norm begins with 1 and 0.

    Each layer has a generator of its own, seeded by experiment and layer index. Numbers are drawn on the host.
    """
    for layer in layers:
        of = parameters[layer.index]
        if isinstance(layer, Norm):
            of.weight_OI.fill_(1.0)
            if of.bias_O is not None:
                of.bias_O.zero_()
            continue
        generator = torch.Generator().manual_seed(seed * LAYERS_PER_SEED + layer.index)
        std = _deviation(layer)
        is_uniform = layer.init.endswith("_uniform") or layer.init == "torch"
        _draw(of.weight_OI, std, generator, is_uniform=is_uniform)
        if of.bias_O is not None and layer.init == "torch":
            _draw(of.bias_O, std, generator, is_uniform=True)
        elif of.bias_O is not None:
            of.bias_O.zero_()


def _deviation(layer: Layer) -> float:
    """The standard deviation of a layer's initial weights."""
    family = layer.init.split("_")[0]
    if family == "xavier":
        return math.sqrt(2.0 / (layer.in_features + layer.out_features))
    gain = {"he": layer.activation.gain, "torch": 1.0 / math.sqrt(3.0)}.get(family, 1.0)
    return gain / math.sqrt(layer.in_features)


def _draw(tensor: Tensor, std: float, generator: torch.Generator, *, is_uniform: bool) -> None:
    """Fill a tensor with numbers of mean zero, drawn on the host."""
    on_host = tensor if tensor.device.type == "cpu" else torch.empty(tensor.shape, dtype=tensor.dtype)
    if is_uniform:
        limit = math.sqrt(3.0) * std
        on_host.uniform_(-limit, limit, generator=generator)
    else:
        on_host.normal_(0.0, std, generator=generator)
    if on_host is not tensor:
        tensor.copy_(on_host)
