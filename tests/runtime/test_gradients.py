"""The gradient of a step against autograd's, and deferred weight gradients against immediate ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.plan import Candidate, Search
from partition.runtime import Fleet, build_module
from partition.runtime.feed import MinibatchFeed
from partition.runtime.step import Step
from partition.runtime.turns import run_in_turn
from partition.schedule import Schedule, from_text, lower

Make = Callable[..., ExperimentConfig]


def build(config: ExperimentConfig, name: str) -> tuple[Fleet, Dataset]:
    search = Search(config)
    return Fleet(search, find(search, name)), load(config)


def find(search: Search, name: str) -> Candidate:
    return next(one for one in search.candidates() if one.name == name)


def gradients(fleet: Fleet) -> list[torch.Tensor]:
    return [parameter.grad.cpu().clone() for parameter in fleet.parameters() if parameter.grad is not None]


def run_schedule(fleet: Fleet, dataset: Dataset, schedule: Schedule, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """The gradients of one step under a schedule given by hand."""
    step = Step(
        sizes=sizes,
        weight=1 / sum(sizes),
        feed=MinibatchFeed(dataset.train_x, dataset.train_y, np.arange(sum(sizes)), sizes),
        seconds=lambda _: 0.0,
    )
    run_in_turn(fleet.runs(0, schedule, step, lambda _: 0.0))
    return gradients(fleet)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh", "sigmoid", "silu", "gelu_tanh", "identity"])
@pytest.mark.parametrize("name", ["whole", "accumulate-3", "pipeline-2x3-1f1b", "pipeline-4x3-gpipe"])
def test_gradients_equal_autograd(make_config: Make, activation: str, loss: str, name: str) -> None:
    """Loss and L2 penalty (once, over weights only) of the whole minibatch, accumulated over microbatches."""
    planner = {"num_microbatches": (3,), "num_stages": (2, 4)}
    config = make_config(activation=activation, loss=loss, number_format="float64", planner=planner)
    fleet, dataset = build(config, name)
    reference = build_module(config.model, seed=config.training.seed, dtype=torch.float64).to_torch()
    for own, torchs in zip(fleet.parameters(), reference.parameters(), strict=True):
        assert torch.equal(own.cpu(), torchs)
    result = fleet.train(dataset.train_x, dataset.train_y, np.arange(22))
    outputs, targets = reference(torch.from_numpy(dataset.train_x[:22])), torch.from_numpy(dataset.train_y[:22])
    functions = torch.nn.functional
    value = functions.mse_loss(outputs, targets) if loss == "mse" else functions.cross_entropy(outputs, targets)
    weights = [parameter for parameter in reference.parameters() if parameter.dim() == 2]
    squares = torch.stack([weight.square().sum() for weight in weights])
    penalty = config.model.l2_penalty / 2 * squares.sum()
    (value + penalty).backward()
    assert result.loss == pytest.approx(value.item(), rel=1e-12)
    assert result.penalty == pytest.approx(penalty.item(), rel=1e-12)
    for own, parameter in zip(gradients(fleet), reference.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.linalg.vector_norm(own - parameter.grad) <= 1e-12 * torch.linalg.vector_norm(parameter.grad)


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_deferred_weight_gradients_are_bit_identical(make_config: Make, activation: str) -> None:
    """W long after I, on every stage but one, against full backwards."""
    config = make_config(activation=activation, planner={"num_microbatches": (3,), "num_stages": (2,)})
    rows = "0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2"
    deferred = "0F0,0F1,0F2,0I0,0I1,0W0,0I2,0W1,0W2\n1F0,1I0,1F1,1I1,1F2,1I2,1W0,1W1,1W2"
    results = []
    for text in (rows, deferred):
        fleet, dataset = build(config, "pipeline-2x3-1f1b")
        results.append(run_schedule(fleet, dataset, lower(from_text(text)), (8, 7, 7)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
