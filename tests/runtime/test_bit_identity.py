"""One device that accumulates and any split of the graph give the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search
from partition.record import Metrics
from partition.runtime import Result, train

Make = Callable[..., ExperimentConfig]
ADAM = {"name": "adam", "lr": 1e-2}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}


def run(config: ExperimentConfig, name: str) -> tuple[list[Metrics], Result]:
    search, metrics = Search(config), []
    candidate = next(one for one in search.candidates() if one.name == name)
    return metrics, train(search, candidate, load(config), metrics.append)


@pytest.mark.parametrize(
    ("activation", "loss", "optimizer", "number_format"),
    [
        ("gelu", "cross_entropy", SGD, "float32"),
        ("relu", "mse", ADAM, "float32"),
        ("tanh", "cross_entropy", ADAM, "float64"),
        ("silu", "mse", SGD, "float64"),
        ("identity", "cross_entropy", SGD, "float32"),
        ("sin", "huber", SGD, "float32"),
        ("elu", "binary_cross_entropy", ADAM, "float32"),
    ],
)
def test_splits_and_schedules_train_bit_identically(
    make_config: Make, activation: str, loss: str, optimizer: dict[str, object], number_format: str
) -> None:
    """22 examples in 4 microbatches are uneven, and 64 training examples leave a short last minibatch."""
    config = make_config(
        activation=activation,
        loss=loss,
        optimizer=optimizer,
        number_format=number_format,
        planner={"num_microbatches": (4,), "num_stages": (2, 3, 4)},
    )
    expected, reference = run(config, "accumulate-4")
    for stages in (2, 3, 4):
        for schedule in ("gpipe", "1f1b"):
            metrics, result = run(config, f"pipeline-{stages}x4-{schedule}")
            assert [one.loss_hex for one in metrics] == [one.loss_hex for one in expected]
            assert [one.grad_norm for one in metrics] == [one.grad_norm for one in expected]
            assert [one.penalty for one in metrics] == [one.penalty for one in expected]
            pairs = zip(result.fleet.parameters(), reference.fleet.parameters(), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
            assert result.summary.final == reference.summary.final


def test_another_microbatch_size_is_close_but_not_the_same(make_config: Make) -> None:
    """The comparison above would notice a difference in the last bits."""
    config = make_config(planner={"num_microbatches": (2, 4)})
    two, _ = run(config, "accumulate-2")
    four, _ = run(config, "accumulate-4")
    assert [one.loss_hex for one in two] != [one.loss_hex for one in four]
    assert [one.loss for one in two] == pytest.approx([one.loss for one in four], rel=1e-4)
