"""Clipping by the norm over all gradients, whatever the split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.runtime import Fleet, build_module
from tests.runtime.by_hand import build_fleet

Make = Callable[..., ExperimentConfig]
PLANNER = {"num_microbatches": (4,), "num_stages": (2, 3, 4)}
NAMES = ["accumulate-4", "pipeline-2x4-1f1b", "pipeline-4x4-gpipe"]


def build(make_config: Make, name: str, max_grad_norm: float | None) -> Fleet:
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": max_grad_norm}
    return build_fleet(make_config(planner=PLANNER, optimizer=optimizer, number_format="float64"), name)


def take_steps(fleet: Fleet) -> list[float]:
    dataset = load(fleet.search.config)
    examples = np.arange(22)
    return [fleet.train(dataset.train_x, dataset.train_y, examples).grad_norm for _ in range(3)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_grad_norm", [0.01, 0.5, 1e6])
def test_it_is_torchs(make_config: Make, name: str, max_grad_norm: float) -> None:
    """The reported norm is the one before clipping."""
    fleet = build(make_config, name, max_grad_norm)
    config, dataset = fleet.search.config, load(fleet.search.config)
    reference = build_module(config.model, dtype=torch.float64).to_torch()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    weights = [parameter for parameter in reference.parameters() if parameter.dim() == 2]
    x, y = torch.from_numpy(dataset.train_x[:22]), torch.from_numpy(dataset.train_y[:22])
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        squares = torch.stack([weight.square().sum() for weight in weights]).sum()
        (torch.nn.functional.cross_entropy(reference(x), y) + config.model.l2_penalty / 2 * squares).backward()
        expected.append(torch.nn.utils.clip_grad_norm_(reference.parameters(), max_grad_norm).item())
        optimizer.step()
    assert take_steps(fleet) == pytest.approx(expected, rel=1e-11)
    for one, other in zip(fleet.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(one.cpu(), other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_split_clips_bit_identically(make_config: Make, name: str) -> None:
    expected, actual = build(make_config, NAMES[0], 0.05), build(make_config, name, 0.05)
    assert take_steps(actual) == take_steps(expected)
    assert all(torch.equal(one, other) for one, other in zip(actual.parameters(), expected.parameters(), strict=True))


def test_a_limit_that_is_never_reached_changes_nothing(make_config: Make) -> None:
    with_limit, without = build(make_config, NAMES[1], 1e6), build(make_config, NAMES[1], None)
    assert take_steps(with_limit) == take_steps(without)
    assert all(
        torch.equal(one, other) for one, other in zip(with_limit.parameters(), without.parameters(), strict=True)
    )
