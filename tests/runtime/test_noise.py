"""Gradient noise: as one gradient for each example has it, the same on every split, no effect on training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.costs.noise import NoiseEstimate, Parts, StepNoise, estimate_noise, step_parts
from partition.data.dataset import Dataset, load
from partition.plan import Search, compare
from partition.record import Metrics
from partition.runtime import Fleet, build_module, joined, train
from tests.runtime.by_hand import build_fleet, find, gradients, peaks_of
from tests.runtime.conftest import build_config
from tests.runtime.ranks import run_ranks
from tests.runtime.test_memory import Total, allocated

pytestmark = pytest.mark.slow

PLANNER = {"num_microbatches": (4,), "num_stages": (2, 4)}
SPLITS = ["accumulate-4", "pipeline-2x4-gpipe", "pipeline-2x4-1f1b", "pipeline-4x4-zb_h1", "pipeline-2x4-zbv",
          "pipeline-2x4-interleaved_1f1b", "pipeline-4x4-zb_h2"]  # fmt: skip
REPLICAS = ["data_parallel-2x4", "data_parallel-4x4", "hybrid-2x2x4-1f1b", "hybrid-2x2x4-zbv"]


def noisy(**changes: Any) -> ExperimentConfig:
    """A small experiment that measures noise."""
    config = build_config(**{"planner": PLANNER, **changes})
    return config.model_copy(update={"training": config.training.model_copy(update={"noise": True})})


def example_gradients(config: ExperimentConfig, dataset: Dataset) -> Tensor:
    """One row for each training example: the gradient of its loss, without penalty, at the initial parameters."""
    module = build_module(config.model, config.training.seed, dtype=torch.float64).to_torch()
    x, y = (torch.from_numpy(np.asarray(of[np.arange(dataset.num_train)])) for of in (dataset.train_x, dataset.train_y))
    loss = torch.nn.functional.cross_entropy if config.model.loss == "cross_entropy" else torch.nn.functional.mse_loss

    def value(parameters: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        return loss(functional_call(module, parameters, (one_x[None],)), one_y[None])

    grads = vmap(grad(value), (None, 0, 0))(dict(module.named_parameters()), x, y)
    return torch.cat([of.flatten(1) for of in grads.values()], dim=1).detach()


def noise_of(fleet: Fleet, dataset: Dataset, examples: np.ndarray[Any, Any], rate: float | None = None) -> StepNoise:
    """What a step on these examples measures."""
    result = fleet.train(dataset.train_x, dataset.train_y, examples, learning_rate=rate)
    assert result.noise is not None
    return result.noise


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "identity"])
def test_norms_are_those_of_vmap_of_grad(loss: str, bias: bool, activation: str) -> None:
    """Each example alone, then all of a minibatch; a large penalty, which has no part in either figure."""
    config = noisy(loss=loss, bias=bias, activation=activation, number_format="float64", l2_penalty=3.0)
    search, dataset = Search(config), load(config)
    expected = example_gradients(config, dataset)
    fleet = Fleet(search, find(search, "pipeline-2x4-1f1b"))
    for example in range(3):
        one = noise_of(fleet, dataset, np.array([example]), 0.0)
        assert one.example_square == pytest.approx(float(expected[example].square().sum()), rel=1e-10)
    step = noise_of(fleet, dataset, np.arange(22), 0.0)
    assert step.num_examples == 22
    assert step.example_square == pytest.approx(float(expected[:22].square().sum(1).mean()), rel=1e-10)
    assert step.mean_square == pytest.approx(float(expected[:22].mean(0).square().sum()), rel=1e-10)


def test_a_penalty_that_outweighs_the_gradient_costs_no_digits() -> None:
    """The mean gradient is measured before the penalty is added: taken off again, few digits would be left of it."""
    fleet, exact = (
        build_fleet(noisy(l2_penalty=30.0, number_format=number_format), "whole")
        for number_format in ("float32", "float64")
    )
    with torch.no_grad():
        for parameter, same in zip(exact.parameters(), fleet.parameters(), strict=True):
            parameter.copy_(same)
    dataset, examples = load(fleet.search.config), np.arange(22)
    expected = noise_of(exact, load(exact.search.config), examples, 0.0).mean_square
    assert noise_of(fleet, dataset, examples, 0.0).mean_square == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("penalty", [0.0, 1e-2])
@pytest.mark.parametrize("limit", [None, 0.1])
def test_every_split_measures_the_same_bits_and_replicas_nearly(penalty: float, limit: float | None) -> None:
    """Two whole minibatches and a short one, on which some replicas have fewer microbatches or none."""
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": limit}
    config = noisy(l2_penalty=penalty, optimizer=optimizer)
    search, dataset = Search(config), load(config)
    found = {}
    for name in [*SPLITS, *REPLICAS]:
        fleet = Fleet(search, find(search, name))
        found[name] = [noise_of(fleet, dataset, np.arange(size)) for size in (22, 22, 3)]
    reference = found[SPLITS[0]]
    assert all(found[name] == reference for name in SPLITS)
    for name in REPLICAS:
        for one, other in zip(found[name], reference, strict=True):
            assert one.example_square == pytest.approx(other.example_square, rel=1e-4)
            assert one.mean_square == pytest.approx(other.mean_square, rel=1e-4)


@pytest.mark.parametrize("name", [*SPLITS, *REPLICAS])
def test_training_has_the_same_bits_as_without(name: str) -> None:
    results = []
    for config in (build_config(planner=PLANNER), noisy()):
        search, dataset = Search(config), load(config)
        fleet = Fleet(search, find(search, name))
        steps = [fleet.train(dataset.train_x, dataset.train_y, np.arange(size)) for size in (22, 22, 15)]
        results.append(
            ([(one.loss, one.grad_norm, one.penalty) for one in steps], gradients(fleet), fleet.parameters())
        )
    (steps, *tensors), (noisy_steps, *noisy_tensors) = results
    assert steps == noisy_steps
    for plain, measured in zip(tensors, noisy_tensors, strict=True):
        assert all(torch.equal(*pair) for pair in zip(plain, measured, strict=True))


@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize(("penalty", "bias"), [(0.0, True), (1e-2, False), (1e-2, True)])
@pytest.mark.parametrize("name", ["whole", "accumulate-4", "pipeline-2x4-zb_h1", "pipeline-4x4-gpipe"])
def test_memory_is_predicted_to_the_byte(
    monkeypatch: pytest.MonkeyPatch, name: str, penalty: float, bias: bool, number_format: str
) -> None:
    """Prediction, ledger and the allocator's events agree."""
    config = noisy(l2_penalty=penalty, bias=bias, number_format=number_format)
    search, dataset = Search(config), load(config)
    candidate, total = find(search, name), Total(monkeypatch)
    with profile(profile_memory=True) as prof:
        fleet = Fleet(search, candidate)
        for size in (22, 22, 15):
            fleet.train(dataset.train_x, dataset.train_y, np.arange(size))
    assert allocated(prof) == (total.peak, total.held)
    assert [worker.device.peak_bytes for worker in fleet.workers] == peaks_of(candidate)


def test_a_step_may_be_the_peak() -> None:
    """Many layers and two examples: norms of rows, thrice where there is a penalty, outweigh every activation."""
    config = noisy(features=(1, *[40] * 8, 1), loss="mse", minibatch_size=2, planner={})
    search, dataset = Search(config), load(config)
    candidate = find(search, "whole")
    fleet = Fleet(search, candidate)
    fleet.train(dataset.train_x, dataset.train_y, np.arange(2))
    stage = search.model.stage(0, 8)
    static = sum(stage.static_bytes(1).values())
    assert fleet.workers[0].device.peak_bytes == static + stage.step.memory.peak_bytes == peaks_of(candidate)[0]
    assert stage.step.memory.peak_bytes == 4 * (3 * (8 * 40 + 1) + 9)


def test_the_simulated_clock_runs_as_predicted() -> None:
    config = noisy()
    search, dataset = Search(config), load(config)
    for name in (*SPLITS, *REPLICAS):
        candidate = find(search, name)
        assert candidate.predicted is not None
        result = Fleet(search, candidate).train(dataset.train_x, dataset.train_y, np.arange(22))
        assert result.step_s == pytest.approx(candidate.predicted.step_s, rel=1e-12)


def test_noise_is_not_measured_unless_it_is_asked_for() -> None:
    config = build_config()
    search, dataset = Search(config), load(config)
    fleet = Fleet(search, find(search, "whole"))
    assert fleet.train(dataset.train_x, dataset.train_y, np.arange(22)).noise is None


def test_a_sharded_model_cannot_measure_it_and_says_so() -> None:
    for one in compare(noisy()).candidates:
        if one.sharding:
            assert not one.feasible
            assert "training.noise=false" in one.reason
    assert any(one.feasible for one in compare(build_config()).candidates if one.sharding)


def frozen_estimate(config: ExperimentConfig, name: str, steps: int) -> tuple[NoiseEstimate, float]:
    """At the initial parameters, minibatches drawn with replacement; and B_noise over the data set, directly."""
    search, dataset = Search(config), load(config)
    fleet, random = Fleet(search, find(search, name)), np.random.default_rng(0)
    parts = []
    for _ in range(steps):
        one = step_parts(noise_of(fleet, dataset, random.integers(0, dataset.num_train, 22), 0.0))
        assert one is not None
        parts.append(one)
    rows = example_gradients(config, dataset)
    mean_square = float(rows.mean(0).square().sum())
    direct = (float(rows.square().sum(1).mean()) - mean_square) / mean_square
    return estimate_noise(parts), direct


@pytest.mark.parametrize(("name", "penalty"), [("accumulate-4", 0.0), ("hybrid-2x2x4-1f1b", 0.5)])
def test_at_frozen_weights_the_estimate_is_that_of_the_data_set(name: str, penalty: float) -> None:
    noise, direct = frozen_estimate(noisy(l2_penalty=penalty, number_format="float64"), name, 300)
    assert noise.b_noise == pytest.approx(direct, rel=0.1)
    assert noise.interval is not None
    assert noise.interval[0] <= direct <= (noise.interval[1] or 0.0)


def run(changes: dict[str, Any], name: str) -> tuple[list[Metrics], NoiseEstimate | None]:
    """Train a candidate, in this process or as one rank of several."""
    config = noisy(**changes)
    search, metrics, dataset = Search(config), list[Metrics](), load(config)
    candidate = find(search, name)
    with joined(search, candidate, dataset.num_train) as world:
        result = train(search, candidate, dataset, metrics.append, world=world)
        return metrics, result.summary.noise


@pytest.mark.parametrize("name", ["pipeline-2x4-zb_h1", "data_parallel-2x4"])
def test_two_processes_know_the_same_noise_as_one(name: str) -> None:
    changes = {"steps": 12, "num_devices": 2, "planner": {"num_microbatches": (4,)}}
    metrics, noise = run(changes, name)
    expected = [(one.tr_sigma, one.grad_sq_norm, one.b_noise) for one in metrics]
    assert noise is not None
    for other_metrics, other in run_ranks(2, run, changes, name):
        assert other == noise
        assert [(one.tr_sigma, one.grad_sq_norm, one.b_noise) for one in other_metrics] == expected


def test_short_minibatches_of_a_run_are_left_out() -> None:
    """64 training examples in minibatches of 22: every third step has 20."""
    metrics, noise = run({"steps": 12}, "whole")
    assert [one.tr_sigma is None for one in metrics] == [False, False, True] * 4
    assert noise is not None
    assert noise.steps == 8


def test_every_figure_of_a_run_follows_from_its_steps() -> None:
    metrics, noise = run({"steps": 50, "minibatch_size": 16}, "whole")
    parts = [Parts(one.tr_sigma or 0.0, one.grad_sq_norm or 0.0) for one in metrics]
    assert noise == estimate_noise(parts, 64)
    assert metrics[49].b_noise == estimate_noise(parts[18:], 64).b_noise
    assert all(one.b_noise is None for one in metrics[:7])


@pytest.mark.slow
def test_a_real_run_is_never_negative_or_silently_wrong() -> None:
    """A small network on mnist5k over 12 epochs, long enough for the gradient to vanish in its noise."""
    config = noisy(features=(784, 64, 10), minibatch_size=50, l2_penalty=1e-3, steps=960, planner={})
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"source": "mnist5k", "num_examples": None})}
    )
    search, dataset, metrics = Search(config), load(config), list[Metrics]()
    noise = train(search, find(search, "whole"), dataset, metrics.append).summary.noise
    assert noise is not None
    assert all((one.tr_sigma or 0.0) >= 0 and math.isfinite(one.tr_sigma or 0.0) for one in metrics)
    scales = [one.b_noise for one in metrics]
    known = [scale for scale in scales if scale is not None]
    assert all(0 < scale <= dataset.num_train / 4 for scale in known)
    assert {(one.grad_sq_norm or 0.0) < 0 for one in metrics} == {True, False}, "single steps do go below 0"
    assert None in scales[32:], "late in training it cannot be told, and is not"
    assert len(known) > 30
    assert noise.identifiable == (noise.b_noise is not None)
