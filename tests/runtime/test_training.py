"""The training loop: which steps it takes, what it reports, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.data.minibatches import minibatches
from partition.errors import RunError
from partition.graph import LOSS_RECORDS
from partition.plan import Search
from partition.record import Metrics
from partition.record.checkpoint import Position
from partition.runtime import Result, build_module, num_steps, train
from partition.runtime.evaluation import host_loss
from tests.runtime.by_hand import find

Make = Callable[..., ExperimentConfig]


def run(config: ExperimentConfig, dataset: Dataset | None = None) -> tuple[list[Metrics], Result]:
    """Train the whole minibatch on one device."""
    search, metrics = Search(config), []
    return metrics, train(search, find(search, "whole"), dataset or load(config), metrics.append)


def with_training(config: ExperimentConfig, **training: Any) -> ExperimentConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


@pytest.mark.parametrize(
    ("training", "expected"),
    [({"steps": 7, "epochs": None}, 7), ({"steps": None, "epochs": 1}, 3), ({"steps": None, "epochs": 4}, 12)],
)
def test_epochs_are_counted_in_minibatches_the_last_one_short(
    make_config: Make, training: dict[str, Any], expected: int
) -> None:
    assert num_steps(with_training(make_config(), **training), 64, 22) == expected


@pytest.mark.parametrize(
    ("training", "start", "expected"),
    [
        ({"steps": 7, "epochs": None}, Position(step=5, epoch=1, minibatch=2), 7),
        ({"steps": None, "epochs": 4}, Position(step=5, epoch=1, minibatch=2), 12),
        ({"steps": None, "epochs": 4}, Position(step=5, epoch=2), 11),  # the rest of an epoch was skipped
        ({"steps": None, "epochs": 1}, Position(step=5, epoch=2), 5),
    ],
)
def test_a_run_that_goes_on_ends_where_it_would_have_ended(
    make_config: Make, training: dict[str, Any], start: Position, expected: int
) -> None:
    assert num_steps(with_training(make_config(), **training), 64, 22, start) == expected


def test_every_step_is_observed_in_order(make_config: Make) -> None:
    """More steps than an epoch has: the next epoch begins."""
    metrics, result = run(make_config(steps=5))
    assert [one.step for one in metrics] == [1, 2, 3, 4, 5]
    assert result.summary.num_steps == 5


def test_the_objective_is_loss_plus_penalty(make_config: Make) -> None:
    for one in run(make_config())[0]:
        assert one.penalty > 0
        assert one.objective == one.loss + one.penalty


def test_the_loss_can_be_read_back_to_the_bit(make_config: Make) -> None:
    assert all(float.fromhex(one.loss_hex) == one.loss for one in run(make_config())[0])


def test_the_loss_is_that_of_a_plain_torch_loop(make_config: Make) -> None:
    """An epoch over 64 examples in minibatches of 22, 22 and 20, momentum and penalty included, in float64."""
    config = with_training(make_config(number_format="float64"), steps=None, epochs=1)
    dataset, options = load(config), config.optimizer
    reference = build_module(config.model, dtype=torch.float64).to_torch()
    optimizer = torch.optim.SGD(reference.parameters(), lr=options.lr, momentum=options.momentum)
    weights = [parameter for parameter in reference.parameters() if parameter.dim() == 2]
    expected = []
    for examples in minibatches(64, 22, seed=0, epoch=0):
        optimizer.zero_grad()
        x, y = torch.from_numpy(dataset.train_x[examples]), torch.from_numpy(dataset.train_y[examples])
        loss = torch.nn.functional.cross_entropy(reference(x), y)
        squares = torch.stack([weight.square().sum() for weight in weights]).sum()
        (loss + config.model.l2_penalty / 2 * squares).backward()
        optimizer.step()
        expected.append(loss.item())
    assert [one.loss for one in run(config)[0]] == pytest.approx(expected, rel=1e-11)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(make_config: Make) -> None:
    config = make_config()
    dataset = load(config)
    dataset.train_x[:] = np.nan
    with pytest.raises(RunError) as caught:
        run(config, dataset)
    assert str(caught.value) == (
        "step 1: loss is nan: the inputs of the minibatch are not all finite; remove or correct such examples "
        "(data), or have all values scaled (data.standardise: each)"
    )


def test_steps_before_the_first_bad_one_are_observed(make_config: Make) -> None:
    """A rate far too large: the first loss is finite, a later one is not."""
    config = make_config(optimizer={"name": "sgd", "lr": 1e30})
    search, metrics = Search(config), []
    with pytest.raises(RunError) as caught:
        train(search, find(search, "whole"), load(config), metrics.append)
    assert metrics
    assert str(caught.value).startswith(f"step {len(metrics) + 1}: ")


def test_a_gradient_that_is_not_finite_stops_the_run_too(make_config: Make) -> None:
    """Errors of 1e18 have a finite square in float32; times inputs of 1e22 they have not."""
    config = make_config(loss="mse", features=(12, 5))
    dataset = load(config)
    dataset.train_x[:] = 1e22
    with torch.no_grad():
        dataset.train_y[:] = build_module(config.model)(torch.from_numpy(dataset.train_x)).numpy() + np.float32(1e18)
    with pytest.raises(RunError, match=r"^step 1: grad_norm is "):
        run(config, dataset)


def test_the_final_training_loss_is_the_last_epochs(make_config: Make) -> None:
    metrics, result = run(make_config(steps=4))
    assert result.summary.final.train_loss == pytest.approx(sum(one.loss for one in metrics[-3:]) / 3)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_evaluation_is_on_the_examples_held_out(make_config: Make, loss: str) -> None:
    config = make_config(loss=loss, number_format="float64")
    dataset = load(config)
    _, result = run(config, dataset)
    reference = build_module(config.model, dtype=torch.float64).to_torch()
    with torch.no_grad():
        for own, trained in zip(reference.parameters(), result.fleet.parameters(), strict=True):
            own.copy_(trained)
        o, y = reference(torch.from_numpy(dataset.test_x)), torch.from_numpy(dataset.test_y)
    functions, final = torch.nn.functional, result.summary.final
    expected = functions.mse_loss(o, y) if loss == "mse" else functions.cross_entropy(o, y)
    assert final.test_loss == pytest.approx(expected.item(), rel=1e-12)
    accuracy = None if loss == "mse" else (o.argmax(1) == y).double().mean().item()
    assert final.test_accuracy == accuracy


def test_without_examples_held_out_there_is_no_test_loss(make_config: Make) -> None:
    config = make_config()
    dataset = load(config)
    nothing = replace(dataset, test_x=dataset.test_x[:0], test_y=dataset.test_y[:0])
    final = run(config, nothing)[1].summary.final
    assert (final.test_loss, final.test_accuracy) == (None, None)
    assert math.isfinite(final.train_loss)


def test_the_summary_sets_predicted_beside_measured(make_config: Make) -> None:
    config = make_config()
    candidate = find(Search(config), "whole")
    summary = run(config)[1].summary
    assert candidate.predicted is not None
    (device,) = summary.per_device
    peak = candidate.stages[0].memory.peak_bytes
    assert (device.device, device.predicted_peak_bytes, device.measured_peak_bytes) == ("simulated:0", peak, peak)
    assert summary.step_time.predicted_s == candidate.predicted.step_s
    assert summary.step_time.clock == "simulated"


def test_a_real_device_is_timed_by_the_wall(make_config: Make) -> None:
    config = make_config(num_devices=1)
    cpu = config.cluster.devices[0].model_copy(update={"kind": "cpu"})
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": (cpu,)})})
    assert run(config)[1].summary.step_time.clock == "wall"


def test_the_same_seed_gives_the_same_run_and_another_seed_another(make_config: Make) -> None:
    config = make_config()
    first, again = run(config)[0], run(config)[0]
    other = run(with_training(config, seed=1))[0]
    assert [one.loss_hex for one in first] == [one.loss_hex for one in again]
    assert [one.loss_hex for one in first] != [one.loss_hex for one in other]


def test_host_loss_is_the_mean_in_float64() -> None:
    o = np.array([[0.0, 0.0], [3.0, 1.0]], dtype=np.float32)
    assert host_loss(LOSS_RECORDS["mse"], o, np.zeros_like(o)) == 2.5
    expected = (math.log(2) + math.log1p(math.exp(-2))) / 2
    assert host_loss(LOSS_RECORDS["cross_entropy"], o, np.array([0, 0])) == pytest.approx(expected, rel=1e-15)
