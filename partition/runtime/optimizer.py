"""The optimizer of one stage: torch.optim's fused kernels, on state that comes from the stage's device."""

from __future__ import annotations

import torch
from torch import Tensor

from partition.config import OptimizerConfig
from partition.graph import Category
from partition.runtime.device import TensorSource


def build_optimizer(
    config: OptimizerConfig, learning_rate: float, parameters: list[Tensor], source: TensorSource
) -> torch.optim.Optimizer:
    """The configured optimizer; its state is taken here, so that no step allocates any."""
    if config.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=config.momentum, fused=True
        )
        names = ["momentum_buffer"] if config.momentum > 0 else []
    else:
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        options = {"betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
        optimizer = kinds[config.name](parameters, lr=learning_rate, fused=True, **options)
        names = ["exp_avg", "exp_avg_sq"]
    for index, parameter in enumerate(parameters):
        optimizer.state[parameter] = _zero_state(parameter, names, index, source)
        if config.name != "sgd":
            count = source.take((), Category.OPTIMIZER, "step count", torch.float32)
            optimizer.state[parameter]["step"] = count.zero_()
    return optimizer


def _zero_state(parameter: Tensor, names: list[str], index: int, source: TensorSource) -> dict[str, Tensor]:
    shape, dtype = tuple(parameter.shape), parameter.dtype
    return {
        name: source.take(shape, Category.OPTIMIZER, f"{name} of parameter {index}", dtype).zero_() for name in names
    }
