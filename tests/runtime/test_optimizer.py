"""torch.optim on state that is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import profile

from partition.config import OptimizerConfig
from partition.costs import Device
from partition.costs.optimizer import optimizer_record
from partition.graph import Category
from partition.runtime.device import RuntimeDevice
from partition.runtime.optimizer import build_optimizer

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1},
    "momentum": {"name": "sgd", "lr": 0.1, "momentum": 0.8},
    "adam": {"name": "adam", "lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6},
    "adamw": {"name": "adamw", "lr": 0.02, "weight_decay": 0.2},
}
every_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


def roomy_device() -> RuntimeDevice:
    return RuntimeDevice(
        Device(name="cpu:0", kind="cpu", memory_bytes=2**30, flop_per_s=1.0, memory_bytes_per_s=1.0, source="test"),
        torch.float64,
    )


def draw_parameters() -> list[torch.Tensor]:
    """A weight and a bias with gradients, the same ones at every call."""
    numbers = torch.Generator().manual_seed(0)
    parameters = []
    for shape in ((3, 4), (3,)):
        parameter = torch.randn(shape, dtype=torch.float64, generator=numbers).requires_grad_()
        parameter.grad = torch.randn(shape, dtype=torch.float64, generator=numbers)
        parameters.append(parameter)
    return parameters


def of_torch(options: dict[str, Any], parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[options["name"]](parameters, **{key: value for key, value in options.items() if key != "name"})


@every_optimizer
def test_steps_are_those_of_torch(options: dict[str, Any]) -> None:
    """Every option of the configuration reaches the optimizer."""
    own, expected = draw_parameters(), draw_parameters()
    config = OptimizerConfig.model_validate(options)
    ours = build_optimizer(config, config.lr, own, roomy_device())
    theirs = of_torch(options, expected)
    for _ in range(3):
        ours.step()
        theirs.step()
    for one, other in zip(own, expected, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-12 * torch.linalg.vector_norm(other)


@every_optimizer
def test_the_learning_rate_is_the_candidates(options: dict[str, Any]) -> None:
    """A smaller minibatch trains at another rate than the configuration's."""
    config = OptimizerConfig.model_validate(options)
    optimizer = build_optimizer(config, 0.5, draw_parameters(), roomy_device())
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]


@every_optimizer
def test_the_device_holds_the_bytes_that_the_record_says(options: dict[str, Any]) -> None:
    config, device = OptimizerConfig.model_validate(options), roomy_device()
    build_optimizer(config, config.lr, draw_parameters(), device)
    expected = optimizer_record(config).state_bytes(15, 2, 8)
    assert device.held_bytes == device.held_by_category.get(Category.OPTIMIZER, 0) == expected


@every_optimizer
def test_a_step_allocates_its_record_and_keeps_nothing(options: dict[str, Any]) -> None:
    """The first step too, in which torch would otherwise make its state."""
    config = OptimizerConfig.model_validate(options)
    optimizer = build_optimizer(config, config.lr, draw_parameters(), roomy_device())
    with profile(profile_memory=True) as session:
        optimizer.step()
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    assert (peak, total) == (optimizer_record(config).workspace_bytes, 0)
