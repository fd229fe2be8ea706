"""More than one thread: no kernel may take a buffer of its own, and a split still changes no bit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search
from partition.runtime import Fleet
from tests.runtime.by_hand import build_fleet, find

Make = Callable[..., ExperimentConfig]
SGD, ADAM = {"name": "sgd", "lr": 1e-4, "momentum": 0.9}, {"name": "adam", "lr": 1e-4}


@pytest.fixture(autouse=True)
def three_threads(one_thread: None) -> Iterator[None]:
    """After the fixture of all runtime tests, which puts the number back."""
    del one_thread
    torch.set_num_threads(3)
    return iter(())


def run(fleet: Fleet, num_steps: int = 2) -> list[str]:
    """The loss of each step, to the bit."""
    dataset, size = load(fleet.search.config), fleet.candidate.minibatch_size
    return [fleet.train(dataset.train_x, dataset.train_y, np.arange(size)).loss.hex() for _ in range(num_steps)]


@pytest.mark.parametrize(
    ("features", "loss", "optimizer", "minibatch_size"),
    [
        ((300, 300, 300), "mse", SGD, 64),  # matrices large enough to be shared out
        ((1, 70_000, 1), "mse", ADAM, 1),  # rows, columns and biases longer than a thread's portion
        ((3, 70_000), "cross_entropy", SGD, 2),
    ],
    ids=["square", "long", "many classes"],
)
def test_the_ledger_is_the_allocators_still(
    make_config: Make, features: tuple[int, ...], loss: str, optimizer: dict[str, Any], minibatch_size: int
) -> None:
    config = make_config(features=features, loss=loss, optimizer=optimizer, minibatch_size=minibatch_size)
    search = Search(config)
    gc.collect()
    with profile(profile_memory=True) as session:
        fleet = Fleet(search, find(search, "whole"))
        run(fleet)
    assert torch.get_num_threads() == 3
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    held_bytes = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    device = fleet.workers[0].device
    assert (held_bytes.max(), held_bytes[-1]) == (device.peak_bytes, device.held_bytes)


@pytest.mark.parametrize("name", ["pipeline-2x2-gpipe", "pipeline-3x2-1f1b"])
def test_a_split_changes_no_bit(make_config: Make, name: str) -> None:
    planner = {"num_microbatches": (2,), "num_stages": (2, 3)}
    config = make_config(features=(300, 200, 300, 10), planner=planner, minibatch_size=64, l2_penalty=1e-3)
    alone, fleet = build_fleet(config, "accumulate-2"), build_fleet(config, name)
    assert run(fleet) == run(alone)
    pairs = zip(fleet.parameters(), alone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
