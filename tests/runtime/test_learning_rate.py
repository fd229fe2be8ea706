"""The learning rate of every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from partition.config import OptimizerConfig
from partition.runtime.learning_rate import learning_rate_at


def rates(num_steps: int, **options: Any) -> list[float]:
    config = OptimizerConfig.model_validate({"lr": 0.5, **options})
    return [learning_rate_at(config, 0.5, step, num_steps) for step in range(1, num_steps + 1)]


def test_it_is_constant_unless_asked_otherwise() -> None:
    assert rates(4) == [0.5] * 4


def test_it_warms_up_in_a_line_and_reaches_its_peak() -> None:
    assert rates(6, warmup_steps=4) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_a_line_ends_at_the_last_step() -> None:
    assert rates(4, lr_schedule="linear", lr_final=0.2) == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_a_cosine_is_torchs_after_the_warm_up(warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.05)
    expected = []
    for _ in range(8):
        optimizer.step()
        scheduler.step()
        expected.append(scheduler.get_last_lr()[0])
    found = rates(8 + warmup_steps, lr_schedule="cosine", lr_final=0.1, warmup_steps=warmup_steps)
    assert found[warmup_steps:] == pytest.approx(expected)


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    assert rates(2, warmup_steps=10, lr_schedule="cosine") == pytest.approx([0.05, 0.1])
