"""Replicas: the gradient of the whole minibatch, in one process and in one for each rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from partition.data.dataset import load
from partition.errors import PartitionError
from partition.plan import Search
from partition.record import Metrics
from partition.runtime import Fleet, joined, train
from partition.runtime.sharded import ShardedModel
from tests.runtime.by_hand import find, peaks_of
from tests.runtime.conftest import build_config
from tests.runtime.ranks import run_ranks

PLANNER = {"num_microbatches": (2, 4)}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
Trained = tuple[list[float], list[np.ndarray[Any, Any]]]


def run(changes: dict[str, Any], name: str) -> Trained:
    """Losses of every step, and the weights of the layers in this process; 64 examples, the last minibatch short."""
    config = build_config(**{"planner": PLANNER, **changes})
    search, metrics, dataset = Search(config), list[Metrics](), load(config)
    candidate = find(search, name)
    with joined(search, candidate, dataset.num_train) as world:
        fleet = train(search, candidate, dataset, metrics.append, world=world).fleet
        assert isinstance(fleet, Fleet | ShardedModel)
        return [one.loss for one in metrics], [tensor.detach().cpu().numpy() for tensor in fleet.parameters()]


def check(actual: Trained, expected: Trained, tolerance: float) -> None:
    """Norm-wise, so that a weight near zero may differ by as much as the largest one."""
    assert actual[0] == pytest.approx(expected[0], rel=tolerance)
    for one, other in zip(actual[1], expected[1], strict=True):
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


@pytest.mark.parametrize("name", ["data_parallel-2x2", "data_parallel-3x2", "hybrid-2x2x2-1f1b", "hybrid-2x2x4-zb_h1"])
@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_replicas_in_one_process_train_as_one_device_does(
    name: str, number_format: str, max_grad_norm: float | None
) -> None:
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": max_grad_norm}
    changes = {"number_format": number_format, "optimizer": optimizer}
    if name.startswith("data_parallel-3"):
        changes["num_devices"] = 3
    check(run(changes, name), run(changes, "accumulate-2"), TOLERANCE[number_format])


@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_two_replicas_of_two_stages_in_four_processes_do_too(number_format: str, max_grad_norm: float | None) -> None:
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": max_grad_norm}
    changes = {"number_format": number_format, "optimizer": optimizer}
    losses, weights = run(changes, "accumulate-2")
    ranks = run_ranks(4, run, changes, "hybrid-2x2x2-1f1b")
    for first, second in (ranks[:2], ranks[2:]):
        check((first[0], first[1] + second[1]), (losses, weights), TOLERANCE[number_format])


@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_a_sharded_model_does_too(number_format: str, max_grad_norm: float | None) -> None:
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": max_grad_norm}
    changes = {"number_format": number_format, "optimizer": optimizer}
    expected = run(changes, "whole")
    for actual in run_ranks(2, run, changes, "sharded-2"):
        check(actual, expected, TOLERANCE[number_format])


def test_a_sharded_model_is_refused_in_one_process_with_the_remedy() -> None:
    with pytest.raises(PartitionError, match=r"^sharded-2 takes one process for each device: train it with --nproc 2$"):
        run({}, "sharded-2")


def test_a_minibatch_smaller_than_the_replicas_leaves_some_without_examples() -> None:
    """One example on four replicas: three add nothing, and the penalty enters once."""
    config = build_config(planner=PLANNER, number_format="float64")
    search, dataset = Search(config), load(config)
    found = []
    for name in ("data_parallel-4x2", "whole"):
        fleet = Fleet(search, find(search, name))
        result = fleet.train(dataset.train_x, dataset.train_y, np.arange(1))
        weights = [tensor.detach().clone() for tensor in fleet.parameters()]
        found.append(((result.loss, result.grad_norm, result.penalty), weights))
    (numbers, weights), (expected, reference) = found
    assert numbers == pytest.approx(expected, rel=1e-12)
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(weights, reference, strict=True))


def test_a_short_minibatch_counts_its_own_losses_alone() -> None:
    """The stage has room for the losses of a whole one, and those of the step before are still there."""
    search = Search(build_config(planner=PLANNER, optimizer={"name": "sgd", "lr": 1e-30}, l2_penalty=0.0))
    dataset, short = load(search.config), np.arange(7)
    fresh, used = (Fleet(search, find(search, "accumulate-4")) for _ in range(2))
    used.train(dataset.train_x, dataset.train_y, np.arange(22))
    expected = fresh.train(dataset.train_x, dataset.train_y, short).loss
    assert used.train(dataset.train_x, dataset.train_y, short).loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize(
    "name", ["data_parallel-4x2", "hybrid-2x2x4-1f1b", "hybrid-2x2x4-zbv", "hybrid-2x2x2-interleaved_1f1b",
             "pipeline-3x4-zb_h2", "pipeline-2x4-zbv", "pipeline-4x4-gpipe"]
)  # fmt: skip
@pytest.mark.parametrize("minibatch_size", [22, 24])
def test_bytes_and_simulated_seconds_are_the_predicted_ones(
    name: str, max_grad_norm: float | None, minibatch_size: int
) -> None:
    """Of uneven shares too, sums over replicas and the wait for the norm included."""
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "max_grad_norm": max_grad_norm}
    config = build_config(planner=PLANNER, optimizer=optimizer, minibatch_size=minibatch_size)
    search, dataset = Search(config), load(config)
    candidate = find(search, name)
    fleet = Fleet(search, candidate)
    steps = [fleet.train(dataset.train_x, dataset.train_y, np.arange(minibatch_size)) for _ in range(2)]
    assert list(fleet.peak_bytes().values()) == peaks_of(candidate)
    assert candidate.predicted is not None
    assert [step.step_s for step in steps] == pytest.approx([candidate.predicted.step_s] * 2, rel=1e-9)
