"""A fleet: the same training whatever the split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.graph import Category
from partition.plan import Candidate, Search
from partition.runtime import Fleet, build_module
from partition.runtime.device import RuntimeDevice
from partition.runtime.workers import StepResult
from tests.runtime.by_hand import build_fleet, gradients, peaks_of

Make = Callable[..., ExperimentConfig]
SPLITS = {"num_microbatches": (4,), "num_stages": (2, 3, 4)}
NAMES = ["accumulate-4", "pipeline-2x4-1f1b", "pipeline-3x4-gpipe", "pipeline-4x4-1f1b"]


def train_once(fleet: Fleet, num_examples: int = 22) -> StepResult:
    dataset = load(fleet.search.config)
    return fleet.train(dataset.train_x, dataset.train_y, np.arange(num_examples))


def peaks(fleet: Fleet) -> list[int]:
    return [worker.device.peak_bytes for worker in fleet.workers]


@pytest.mark.parametrize("name", NAMES)
def test_initial_parameters_do_not_depend_on_the_split(make_config: Make, name: str) -> None:
    """They are the module's of the same seed."""
    config = make_config(planner=SPLITS, features=(12, 9, 9, 9, 5))
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": 5})})
    expected = list(build_module(config.model, seed=5).parameters())
    actual = build_fleet(config, name).parameters()
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_norm_is_that_of_all_gradients(make_config: Make, name: str) -> None:
    fleet = build_fleet(make_config(planner=SPLITS, number_format="float64"), name)
    result = train_once(fleet)
    expected = torch.cat([gradient.flatten() for gradient in gradients(fleet)]).norm().item()
    assert result.grad_norm == pytest.approx(expected, rel=1e-12)


def test_the_penalty_is_that_of_the_weights_before_the_step(make_config: Make) -> None:
    fleet = build_fleet(make_config(number_format="float64", planner=SPLITS), "pipeline-2x4-1f1b")
    weights = [parameter.detach() for parameter in fleet.parameters() if parameter.dim() == 2]
    expected = 1e-2 / 2 * sum(weight.square().sum().item() for weight in weights)
    assert train_once(fleet).penalty == pytest.approx(expected, rel=1e-12)


def test_without_a_penalty_none_is_reported(make_config: Make) -> None:
    assert train_once(build_fleet(make_config(l2_penalty=0.0), "whole")).penalty == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_the_modules_in_the_order_of_the_rows(make_config: Make, name: str) -> None:
    """15 rows in portions of a microbatch, the last one short."""
    config = make_config(planner=SPLITS, number_format="float64")
    x = load(config).train_x[:15]
    portions = list(build_fleet(config, name).predict(x))
    assert [len(portion) for portion in portions] == [6, 6, 3]
    expected = build_module(config.model, dtype=torch.float64).to_torch()(torch.from_numpy(x)).detach().numpy()
    assert np.linalg.norm(np.concatenate(portions) - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_prediction_alone_takes_less_than_training(make_config: Make, activation: str, name: str) -> None:
    fleet = build_fleet(make_config(planner=SPLITS, activation=activation), name)
    list(fleet.predict(load(fleet.search.config).test_x))
    predicted = peaks_of(fleet.candidate)
    assert all(measured < limit for measured, limit in zip(peaks(fleet), predicted, strict=True))


def test_prediction_gives_everything_back(make_config: Make) -> None:
    fleet = build_fleet(make_config(planner=SPLITS), "pipeline-3x4-gpipe")
    before = [worker.device.held_bytes for worker in fleet.workers]
    list(fleet.predict(load(fleet.search.config).test_x))
    assert [worker.device.held_bytes for worker in fleet.workers] == before


@pytest.mark.parametrize(
    ("activation", "minibatch_size", "num_microbatches"),
    [
        ("gelu", 22, 4),
        ("relu", 23, 5),
        ("identity", 22, 2),
        ("identity", 24, 7),  # what is sent last stays until the step
    ],
)
def test_a_short_minibatch_needs_no_more_memory(
    make_config: Make, activation: str, minibatch_size: int, num_microbatches: int
) -> None:
    """Of any length; the widest tensor is the one sent."""
    planner = {"num_microbatches": (num_microbatches,), "num_stages": (2, 3)}
    config = make_config(activation=activation, minibatch_size=minibatch_size, planner=planner,
                         features=(3, 60, 60, 2))  # fmt: skip
    search = Search(config)
    for candidate in pipelines(search):
        fleet = Fleet(search, candidate)
        for num_examples in range(1, minibatch_size):
            train_once(fleet, num_examples)
        predicted = peaks_of(candidate)
        assert all(measured <= limit for measured, limit in zip(peaks(fleet), predicted, strict=True)), candidate.name


def pipelines(search: Search) -> Iterator[Candidate]:
    return (candidate for candidate in search.candidates() if candidate.strategy == "pipeline")


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "adam", "lr": 0.01}])
def test_a_later_step_allocates_nothing_that_stays(make_config: Make, optimizer: dict[str, Any]) -> None:
    """The allocator's bytes come back to where they were, and rise by what the plan holds beyond the static bytes."""
    fleet = build_fleet(make_config(optimizer=optimizer), "whole")
    dataset = load(fleet.search.config)
    static = fleet.workers[0].device.held_bytes
    with profile(profile_memory=True) as session:
        fleet.train(dataset.train_x, dataset.train_y, np.arange(22))
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    sums = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    assert sums[-1] == 0
    assert sums.max() == fleet.candidate.stages[0].memory.peak_bytes - static


def test_optimizer_state_is_counted_before_the_first_step(make_config: Make) -> None:
    fleet = build_fleet(make_config(planner=SPLITS), "pipeline-2x4-1f1b")
    for worker in fleet.workers:
        held = worker.device.held_by_category
        assert held[Category.OPTIMIZER] == held[Category.PARAMETERS] == held[Category.GRADIENTS] > 0


def test_a_slow_link_shows_on_the_simulated_clock(make_config: Make) -> None:
    """Latency is paid once for each message that the last rank waits for, so the step is longer by at least two."""
    quick = build_fleet(make_config(planner=SPLITS), "pipeline-2x4-1f1b")
    config = quick.search.config
    slow_link = config.cluster.links.intra_node.model_copy(update={"latency_s": 1.0})
    links = config.cluster.links.model_copy(update={"intra_node": slow_link})
    slow = build_fleet(config.model_copy(update={"cluster": config.cluster.model_copy(update={"links": links})}),
                       "pipeline-2x4-1f1b")  # fmt: skip
    assert train_once(slow).step_s > train_once(quick).step_s + 2 * (1.0 - 1e-5)


@pytest.mark.parametrize("num_examples", [7, 21])
def test_a_short_step_runs_its_own_time(make_config: Make, num_examples: int) -> None:
    fleet = build_fleet(make_config(planner=SPLITS), "pipeline-2x4-1f1b")
    assert 0 < train_once(fleet, num_examples).step_s < train_once(fleet).step_s


@pytest.mark.parametrize("name", [*NAMES, "pipeline-2x4-zb_h1", "pipeline-2x4-interleaved_1f1b", "pipeline-2x4-zbv"])
def test_a_rehearsal_leaves_no_trace(make_config: Make, name: str) -> None:
    """Every rank runs all its actions by itself, in the memory that training takes, and gives everything back."""
    config = make_config(planner={**SPLITS, "num_stages": (2, 3, 4)}, activation="silu")
    expected, actual = build_fleet(config, name), build_fleet(config, name)
    before = [worker.device.held_bytes for worker in actual.workers]
    start = [one.clone() for one in actual.parameters()]
    actual.rehearse()
    assert [worker.device.held_bytes for worker in actual.workers] == before
    assert all(torch.equal(one, other) for one, other in zip(actual.parameters(), start, strict=True))
    assert train_once(actual).grad_norm == train_once(expected).grad_norm
    assert all(torch.equal(one, other) for one, other in zip(actual.parameters(), expected.parameters(), strict=True))
    assert peaks(actual) == peaks_of(actual.candidate)


def test_ledgers_stay_apart(make_config: Make) -> None:
    """Each rank has a device of its own."""
    fleet = build_fleet(make_config(planner=SPLITS), "pipeline-3x4-gpipe")
    devices: list[RuntimeDevice] = [worker.device for worker in fleet.workers]
    assert [device.name for device in devices] == ["simulated:0", "simulated:1", "simulated:2"]
    assert math.prod(device.held_bytes for device in devices) > 0
