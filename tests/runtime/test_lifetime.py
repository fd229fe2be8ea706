"""When memory is free in truth: what is dropped is gone at once, without waiting for the cyclic collector.

The collector counts objects, not bytes: a few hundred of them may hold gigabytes.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.errors import DeviceMemoryError
from partition.plan import Search
from partition.runtime import Fleet, build_module
from partition.runtime.channel import LocalChannels
from partition.runtime.stage import Stage
from tests.runtime.by_hand import build_fleet, find, peaks_of
from tests.runtime.events import peaks_by_rank, recorded

Make = Callable[..., ExperimentConfig]
PIPELINE = "pipeline-2x4-gpipe"
PLANNER = {"num_microbatches": (4,), "num_stages": (2,)}


@pytest.fixture(autouse=True)
def no_collector(make_config: Make) -> Iterator[None]:
    """The first optimizer of a process leaves a cycle of torch's own, so one is made and collected before."""
    build_fleet(make_config(), "whole")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watch(fleet: Fleet) -> Callable[[], int]:
    """Counts how many of the fleet's parameters are still there."""
    references = [weakref.ref(parameter) for parameter in fleet.parameters()]
    return lambda: sum(reference() is not None for reference in references)


def step(fleet: Fleet) -> None:
    dataset = load(fleet.search.config)
    fleet.train(dataset.train_x, dataset.train_y, np.arange(22))


@pytest.mark.parametrize("num_steps", [0, 1])
def test_a_fleet_that_is_dropped_is_gone(make_config: Make, num_steps: int) -> None:
    fleet = build_fleet(make_config(planner=PLANNER), PIPELINE)
    for _ in range(num_steps):
        step(fleet)
    num_alive = watch(fleet)
    assert num_alive() == 8
    del fleet
    assert num_alive() == 0


def fail(config: ExperimentConfig) -> Callable[[], int]:
    """A fleet whose last stage runs out of memory in its first backward, several forwards after the first."""
    fleet = build_fleet(config, PIPELINE)
    device = fleet.workers[1].device
    device.spec = replace(device.spec, memory_bytes=fleet.candidate.stages[1].memory.peak_bytes - 1)
    with pytest.raises(DeviceMemoryError):
        step(fleet)
    return watch(fleet)


def test_a_fleet_that_failed_can_be_freed(make_config: Make) -> None:
    """A node of autograd and the edge to it in a frame hold each other where no collector sees it."""
    num_alive = fail(make_config(planner=PLANNER))
    gc.collect()
    assert num_alive() == 0


def test_forwards_of_a_module_leave_no_stage_behind(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that did would keep the gradient buffers that its backward filled: a parameter set for every step."""
    made: list[weakref.ref[Stage]] = []

    def record(*arguments: Any, **options: Any) -> Stage:
        stage = Stage(*arguments, **options)
        made.append(weakref.ref(stage))
        return stage

    monkeypatch.setattr("partition.runtime.module.Stage", record)
    module = build_module(make_config().model)
    torch.autograd.grad(module(torch.randn(2, 12)).sum(), list(module.parameters()))
    assert len(made) == 2
    assert [reference() for reference in made] == [None, None]


class Holding:
    """A delivery that keeps its tensor until it has been waited for, as the works of torch.distributed do."""

    def __init__(self, delivery: Any, tensor: torch.Tensor) -> None:
        self.delivery = delivery
        self.tensor: torch.Tensor | None = tensor

    def wait(self) -> bool:
        """Whether it has arrived; then the tensor is let go."""
        if not self.delivery.wait():
            return False
        self.tensor = None
        return True

    @property
    def completed_s(self) -> float:
        """When it arrived."""
        seconds: float = self.delivery.completed_s
        return seconds


INTERLEAVED = {"schedules": ("interleaved_1f1b",)}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "pipeline-2x5-interleaved_1f1b",
            {"features": (22, 15, 13, 22, 5), "activation": "tanh", "minibatch_size": 22,
             "planner": {**INTERLEAVED, "num_microbatches": (5,), "num_stages": (4,)}},
        ),
        (
            "pipeline-3x9-interleaved_1f1b",
            {"features": (8, 14, 2, 9, 7, 8, 3, 22, 3), "activation": "gelu", "minibatch_size": 38,
             "planner": {**INTERLEAVED, "num_microbatches": (9,), "num_stages": (6,)}, "bias": False},
        ),
    ],
)  # fmt: skip
def test_a_message_still_under_way_in_name_keeps_nothing_that_its_backward_gives_back(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any]
) -> None:
    """The last send of a stage is settled at the optimizer step, its backward comes before.

    It once held the sent output that tanh keeps, and through the graph behind the one that gelu computes the input.
    """
    original = LocalChannels.send
    monkeypatch.setattr(LocalChannels, "send", lambda self, key, tensor, now_s: Holding(
        original(self, key, tensor, now_s), tensor
    ))  # fmt: skip
    search = Search(make_config(**changes))
    candidate, dataset = find(search, name), load(search.config)
    with recorded() as events:
        fleet = Fleet(search, candidate)
        fleet.train(dataset.train_x, dataset.train_y, np.arange(candidate.minibatch_size))
    assert peaks_by_rank(events) == dict(enumerate(peaks_of(candidate)))
