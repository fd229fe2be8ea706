"""Every way to cut four layers into stages, not only those that the planner would choose."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search, Segment
from partition.plan.shape import Shape
from partition.runtime import Fleet
from tests.runtime.by_hand import peaks_of

Make = Callable[..., ExperimentConfig]
NUM_LAYERS, MINIBATCH, MICROBATCHES = 4, 22, 4
CUTS = [cut for count in range(NUM_LAYERS) for cut in combinations(range(1, NUM_LAYERS), count)]


def build(config: ExperimentConfig, cut: tuple[int, ...], schedule: str) -> Fleet:
    """Stages that begin at layer 0 and at every layer of the cut, one a device."""
    ends = [0, *cut, NUM_LAYERS]
    segments = [Segment(index, first, following - 1) for index, (first, following) in enumerate(pairwise(ends))]
    shape = Shape(name="by hand", strategy="pipeline", minibatch_size=MINIBATCH, num_microbatches=MICROBATCHES,
                  num_ranks=len(segments), num_stages=len(segments), schedule=schedule)  # fmt: skip
    search = Search(config)
    return Fleet(search, search.price(shape, segments))


def train(fleet: Fleet) -> list[tuple[float, float, float]]:
    """Two whole minibatches and a short one: loss, penalty and gradient norm of each step."""
    dataset = load(fleet.search.config)
    steps = [np.arange(22), np.arange(22, 44), np.arange(44, 59)]
    results = [fleet.train(dataset.train_x, dataset.train_y, examples) for examples in steps]
    return [(one.loss, one.penalty, one.grad_norm) for one in results]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize(
    ("activation", "optimizer"),
    [("silu", {"name": "adamw", "lr": 1e-2}), ("sigmoid", {"name": "sgd", "lr": 0.1, "momentum": 0.9})],
    ids=["silu-adamw", "sigmoid-sgd"],
)
def test_same_bits_and_predicted_bytes(
    make_config: Make, activation: str, optimizer: dict[str, object], cut: tuple[int, ...], schedule: str
) -> None:
    config = make_config(activation=activation, optimizer=optimizer, bias=activation == "silu")
    alone, fleet = build(config, (), "1f1b"), build(config, cut, schedule)
    assert train(fleet) == train(alone)
    pairs = zip(fleet.parameters(), alone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    predicted = peaks_of(fleet.candidate)
    assert [worker.device.peak_bytes for worker in fleet.workers] == predicted


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_step_takes_the_predicted_time(make_config: Make, cut: tuple[int, ...], schedule: str) -> None:
    fleet = build(make_config(), cut, schedule)
    dataset = load(fleet.search.config)
    assert fleet.candidate.predicted is not None
    step_s = fleet.train(dataset.train_x, dataset.train_y, np.arange(MINIBATCH)).step_s
    assert step_s == pytest.approx(fleet.candidate.predicted.step_s, rel=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_prediction_takes_less_than_training(make_config: Make, cut: tuple[int, ...], loss: str) -> None:
    """On whole microbatches, and the widest layers last, where prediction comes closest."""
    fleet = build(make_config(features=(2, 3, 5, 9, 60), loss=loss), cut, "1f1b")
    list(fleet.predict(load(fleet.search.config).train_x))
    predicted = peaks_of(fleet.candidate)
    assert all(worker.device.peak_bytes < peak for worker, peak in zip(fleet.workers, predicted, strict=True))
