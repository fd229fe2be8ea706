"""Initial parameters: drawn layer by layer from the experiment's seed, the same on any split and any device."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from partition.graph import Layer
from partition.runtime.stage import Parameters

LAYERS_PER_SEED = 2**20
"""Seeds of successive experiments lie this far apart, so that no two layers of two experiments share one."""


@torch.no_grad()
def initialise(layers: Iterable[Layer], parameters: dict[int, Parameters], seed: int) -> None:
    """Weights from N(0, gain² / in_features) (He et al. 2015), biases zero.

    Each layer has a generator of its own, seeded by experiment and layer index. Numbers are drawn on the host.
    """
    for layer in layers:
        of = parameters[layer.index]
        generator = torch.Generator().manual_seed(seed * LAYERS_PER_SEED + layer.index)
        std = layer.activation.gain / math.sqrt(layer.in_features)
        if of.weight_OI.device.type == "cpu":
            of.weight_OI.normal_(0.0, std, generator=generator)
        else:
            on_host = torch.empty(of.weight_OI.shape, dtype=of.weight_OI.dtype)
            of.weight_OI.copy_(on_host.normal_(0.0, std, generator=generator))
        if of.bias_O is not None:
            of.bias_O.zero_()
