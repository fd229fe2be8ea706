"""Gradient noise of networks of blocks: as one gradient for each example has it, the same on every split."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from partition.config import ExperimentConfig
from partition.costs.noise import StepNoise
from partition.data.dataset import Dataset, load
from partition.graph import build_network
from partition.graph.layers import Dropout
from partition.ops.dropout import LEVELS, MaskKey, draw_mask, threshold
from partition.plan import Search
from partition.runtime import Fleet, build_module
from tests.runtime.by_hand import find, gradients
from tests.runtime.conftest import build_config
from tests.runtime.random_experiments import random_blocks, random_experiment
from tests.runtime.test_random_experiments import check_peaks, with_slow

BLOCKS: tuple[dict[str, Any], ...] = (
    {"norm": "layer_norm"},
    {"linear": 9, "activation": "gelu", "dropout": 0.2},
    {"residual": {"norm": "layer_norm", "hidden": 14, "dropout": 0.3}},
    {"residual": {"norm": "rms_norm", "swiglu": 7}, "repeat": 2},
    {"norm": "rms_norm"},
)
PLANNER = {"num_microbatches": (4,), "num_stages": (2, 4)}
SPLITS = ["accumulate-4", "pipeline-2x4-1f1b", "pipeline-4x4-zb_h1", "pipeline-2x4-zbv", "pipeline-4x4-gpipe"]
FAST = range(2)
"""Random networks of the fast suite; others are slow tests."""


def noisy(config: ExperimentConfig, *, measures: bool = True) -> ExperimentConfig:
    """The experiment with noise measured."""
    return config.model_copy(update={"training": config.training.model_copy(update={"noise": measures})})


class Masked(nn.Module):
    """A dropout with given masks, one for each example."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(features, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def with_masks(config: ExperimentConfig, num_examples: int, step: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """The initial network in plain torch, and the masks that a step drops with by name: a row for each example."""
    module = build_module(config.model, config.training.seed, dtype=torch.float64).to_torch()
    dropouts = [part for unit in build_network(config.model).layers for part in unit.parts if isinstance(part, Dropout)]
    names = [name for name, one in module.named_modules() if isinstance(one, nn.Dropout)]
    masks = dict[str, Tensor]()
    for name, part in zip(names, dropouts, strict=True):
        module.set_submodule(name, Masked(part.features))
        key = MaskKey(config.training.seed, step, part.index, 0)
        kept = torch.from_numpy(draw_mask(key, num_examples, part.features, part.rate)).double()
        masks[f"{name}.mask"] = kept * LEVELS / (LEVELS - threshold(part.rate))
    return module, masks


def example_gradients(config: ExperimentConfig, dataset: Dataset, num_examples: int, step: int) -> Tensor:
    """One row for each of the first examples: the gradient of its loss, without penalty, at the initial parameters."""
    module, masks = with_masks(config, num_examples, step)
    examples = np.arange(num_examples)
    x, y = (torch.from_numpy(np.asarray(of[examples])) for of in (dataset.train_x, dataset.train_y))

    def value(parameters: dict[str, Tensor], of_example: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        o = functional_call(module, {**parameters, **of_example}, (one_x[None].double(),))
        return nn.functional.cross_entropy(o, one_y[None])

    grads = vmap(grad(value), (None, 0, 0, 0))(dict(module.named_parameters()), masks, x, y)
    return torch.cat([of.flatten(1) for of in grads.values()], dim=1).detach()


def steps_of(fleet: Fleet, dataset: Dataset, size: int = 22) -> Iterator[StepNoise]:
    """What step after step measures on the first examples, at the initial parameters."""
    while True:
        result = fleet.train(dataset.train_x, dataset.train_y, np.arange(size), learning_rate=0.0)
        assert result.noise is not None
        yield result.noise


def check_norms(config: ExperimentConfig, name: str) -> None:
    """Two steps, whose masks differ."""
    search, dataset = Search(config), load(config)
    measured = steps_of(Fleet(search, find(search, name)), dataset)
    for step, noise in zip((1, 2), measured, strict=False):
        expected = example_gradients(config, dataset, 22, step)
        assert noise.example_square == pytest.approx(float(expected.square().sum(1).mean()), rel=1e-10)
        assert noise.mean_square == pytest.approx(float(expected.mean(0).square().sum()), rel=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["accumulate-4", "pipeline-4x4-zb_h1"])
def test_norms_are_those_of_vmap_of_grad(name: str, bias: bool) -> None:
    """Norms, gates, sums and masks; a large penalty, which has no part in either figure."""
    check_norms(noisy(build_config(blocks=BLOCKS, bias=bias, planner=PLANNER, l2_penalty=3.0,
                                   number_format="float64")), name)  # fmt: skip


@pytest.mark.parametrize("seed", with_slow(FAST, range(60)))
def test_norms_of_random_blocks_are_those_of_vmap_of_grad(seed: int) -> None:
    choose = random.Random(seed)
    blocks = random_blocks(choose, choose.randint(3, 6))
    config = build_config(blocks=blocks, bias=choose.random() < 0.5, number_format="float64", planner=PLANNER,
                          l2_penalty=choose.choice([0.0, 0.1]))  # fmt: skip
    check_norms(noisy(config), choose.choice(SPLITS[:-1] if len(blocks) < 7 else SPLITS))


@pytest.mark.parametrize("seed", with_slow(FAST, range(100)))
def test_memory_is_predicted_to_the_byte(seed: int) -> None:
    config, name = random_experiment(seed, has_blocks=True)
    check_peaks(noisy(config), name)


@pytest.mark.slow
def test_every_split_measures_the_same_bits_and_training_is_as_without() -> None:
    found, trained = [], []
    for name in SPLITS:
        config = noisy(build_config(blocks=BLOCKS, planner=PLANNER))
        search, dataset = Search(config), load(config)
        fleet = Fleet(search, find(search, name))
        noises = [fleet.train(dataset.train_x, dataset.train_y, np.arange(size)).noise for size in (22, 22, 3)]
        found.append(noises)
        trained.append((gradients(fleet), fleet.parameters()))
    plain = build_config(blocks=BLOCKS, planner=PLANNER)
    search = Search(plain)
    fleet = Fleet(search, find(search, SPLITS[0]))
    for size in (22, 22, 3):
        fleet.train(dataset.train_x, dataset.train_y, np.arange(size))
    trained.append((gradients(fleet), fleet.parameters()))
    assert all(noises == found[0] for noises in found)
    for grads, parameters in trained[1:]:
        assert all(map(torch.equal, grads, trained[0][0]))
        assert all(map(torch.equal, parameters, trained[0][1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data_parallel-2x4", "hybrid-2x2x4-1f1b"])
def test_replicas_measure_nearly_the_same(name: str) -> None:
    config = noisy(build_config(blocks=BLOCKS, planner=PLANNER, number_format="float64"))
    search, dataset = Search(config), load(config)
    one, other = (next(steps_of(Fleet(search, find(search, of)), dataset)) for of in ("accumulate-4", name))
    assert one.example_square == pytest.approx(other.example_square, rel=1e-12)
    assert one.mean_square == pytest.approx(other.mean_square, rel=1e-12)
