"""One device that accumulates and any split of the graph give the same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search
from partition.record import Metrics
from partition.runtime import Fleet, Result, train

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
        ("gelu", "cross_entropy", SGD, "bfloat16"),
        pytest.param("relu", "mse", ADAM, "bfloat16", marks=pytest.mark.slow),
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


BLOCKS = (
    {"linear": 9, "activation": "gelu", "dropout": 0.2},
    {"residual": {"norm": "layer_norm", "hidden": 14, "dropout": 0.3}},
    {"residual": {"norm": "rms_norm", "swiglu": 7, "dropout": 0.1}, "repeat": 2},
    {"residual": {"hidden": 6, "activation": "tanh"}},
    {"norm": "layer_norm"},
)
"""Every kind of block; six blocks and the last layer."""


@pytest.mark.parametrize(
    ("loss", "optimizer", "number_format"),
    [
        ({"loss": "cross_entropy"}, ADAM, "float32"),
        ({"loss": "cross_entropy", "label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5, 1.0, 3.0)}, SGD, "float32"),
        pytest.param({"loss": "mse"}, SGD, "float64", marks=pytest.mark.slow),
        pytest.param({"loss": "huber"}, ADAM, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_blocks_train_bit_identically_on_any_split_and_schedule(
    make_config: Make, loss: dict[str, object], optimizer: dict[str, object], number_format: str
) -> None:
    """Norms, residual sums, gates and what dropout drops know nothing of the split."""
    config = make_config(
        blocks=BLOCKS,
        **loss,
        optimizer=optimizer,
        number_format=number_format,
        planner={"num_microbatches": (4,), "num_stages": (2, 4), "schedules": ("1f1b", "gpipe", "zb_h1", "zbv")},
    )
    expected, reference = run(config, "accumulate-4")
    names = [f"pipeline-{stages}x4-{schedule}" for stages in (2, 4) for schedule in ("1f1b", "gpipe", "zb_h1")]
    for name in [*names, "pipeline-2x4-zbv"]:
        metrics, result = run(config, name)
        assert [one.loss_hex for one in metrics] == [one.loss_hex for one in expected]
        assert [one.grad_norm for one in metrics] == [one.grad_norm for one in expected]
        assert [one.penalty for one in metrics] == [one.penalty for one in expected]
        pairs = zip(result.fleet.parameters(), reference.fleet.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        assert result.summary.final == reference.summary.final


def test_what_is_dropped_is_the_same_whatever_the_microbatches_and_replicas(make_config: Make) -> None:
    """Otherwise the losses would differ by far more than rounding; and without dropout they are others."""
    strategies = ("whole", "accumulate", "data_parallel", "hybrid")
    planner = {"num_microbatches": (1, 2, 5), "num_stages": (2,), "schedules": ("1f1b",), "strategies": strategies}
    config = make_config(blocks=BLOCKS, number_format="float64", planner=planner, num_devices=4)
    expected, _ = run(config, "whole")
    others = ("accumulate-5", "data_parallel-2x1", "data_parallel-4x1", "hybrid-2x2x2-1f1b")
    for name in others:
        metrics, _ = run(config, name)
        assert [one.loss for one in metrics] == pytest.approx([one.loss for one in expected], rel=1e-9)
    plain = tuple({**block, "dropout": 0.0} if "linear" in block else block for block in BLOCKS)
    without, _ = run(make_config(blocks=plain, number_format="float64", planner=planner), "whole")
    assert abs(without[0].loss - expected[0].loss) > 1e-3


def test_another_microbatch_size_is_close_but_not_the_same(make_config: Make) -> None:
    """The comparison above would notice a difference in the last bits."""
    config = make_config(planner={"num_microbatches": (2, 4)})
    two, _ = run(config, "accumulate-2")
    four, _ = run(config, "accumulate-4")
    assert [one.loss_hex for one in two] != [one.loss_hex for one in four]
    assert [one.loss for one in two] == pytest.approx([one.loss for one in four], rel=1e-4)


def test_rows_that_are_gathered_ahead_are_those_of_their_minibatch(make_config: Make) -> None:
    """On a GPU; elsewhere nothing is gathered ahead. The last minibatch is short, and one comes that was not told."""
    config = make_config(planner={"num_microbatches": (4,)})
    search, dataset = Search(config), load(config)
    candidate = next(one for one in search.candidates() if one.name == "accumulate-4")
    chosen = np.random.default_rng(0).permutation(64)
    minibatches = [chosen[:22], chosen[22:44], chosen[44:], chosen[10:32], chosen[:22]]
    told = [*minibatches[1:3], minibatches[0], minibatches[4], None]
    losses = []
    for is_told in (False, True):
        fleet = Fleet(search, candidate)
        losses.append(
            [
                fleet.train(dataset.train_x, dataset.train_y, examples, upcoming=upcoming if is_told else None).loss
                for examples, upcoming in zip(minibatches, told, strict=True)
            ]
        )
    assert losses[0] == losses[1]
