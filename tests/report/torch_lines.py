"""Lines of PyTorch executed on a small model, alone or on several ranks, and the step that they should make."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partition.config import ExperimentConfig
from partition.runtime import build_module

LOSSES = {"cross_entropy": nn.CrossEntropyLoss, "mse": nn.MSELoss}


def namespace(config: ExperimentConfig) -> dict[str, Any]:
    """What the lines expect to be there."""
    generator = torch.Generator().manual_seed(1)
    size, model = config.training.minibatch_size, config.model
    x = torch.rand(size, model.in_features, generator=generator)
    y: Tensor = torch.randint(model.out_features, (size,), generator=generator)
    if model.loss == "mse":
        y = torch.rand(size, model.out_features, generator=generator)
    return {"model": build_module(model).to_torch(), "loss_fn": LOSSES[model.loss](), "x": x, "y": y}


def parameters_of(model: nn.Module) -> list[list[float]]:
    """The values of all parameters, as lists: they go through a pipe."""
    return [parameter.detach().flatten().tolist() for parameter in model.parameters()]


def reference(config: ExperimentConfig, num_examples: int, learning_rate: float) -> list[list[float]]:
    """The parameters after one step on the first examples, the plain way."""
    names = namespace(config)
    model, x, y = names["model"], names["x"][:num_examples], names["y"][:num_examples]
    loss = names["loss_fn"](model(x), y)
    weights = [one for one in model.parameters() if one.dim() == 2]
    (loss + config.model.l2_penalty / 2 * sum(one.square().sum() for one in weights)).backward()
    if config.optimizer.max_grad_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
    torch.optim.SGD(model.parameters(), lr=learning_rate).step()
    return parameters_of(model)


def execute(config: ExperimentConfig, lines: str, num_examples: int) -> list[list[float]]:
    """The parameters after the lines have run."""
    names = namespace(config)
    names |= {"x": names["x"][:num_examples], "y": names["y"][:num_examples]}
    exec(compile(lines, "lines", "exec"), names)
    return parameters_of(names["model"])


def execute_on_rank(config: ExperimentConfig, lines: str) -> dict[int, list[float]]:
    """The parameters that this rank has updated, by their place in the model."""
    dist.init_process_group("gloo")
    names = namespace(config)
    before = parameters_of(names["model"])
    owned = list(names["model"].parameters())
    exec(compile(lines, "lines", "exec"), names)
    if any(hasattr(one, "full_tensor") for one in names["model"].parameters()):
        after = [one.full_tensor().detach().flatten().tolist() for one in names["model"].parameters()]
    else:
        after = [one.detach().flatten().tolist() for one in owned]
    dist.barrier()
    dist.destroy_process_group()
    return {place: now for place, (then, now) in enumerate(zip(before, after, strict=True)) if then != now}
