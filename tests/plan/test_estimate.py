"""Predictions by hand: one microbatch through two unlike devices, and sums over the parts of a step."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Prediction, Search, Segment
from partition.plan.shape import Shape
from partition.plan.splitter import Splitter

from .conftest import build_config

# 12 -> 10 -> 9 -> 8 -> 5, cut after layer 1: 9 columns cross. Device 1 is twice as fast as device 0.
SEGMENTS = [Segment(0, 0, 1), Segment(1, 2, 3)]
LATENCY_S, BYTES_PER_S = 1e-5, 1e8


def unlike_devices(**changes: Any) -> ExperimentConfig:
    devices = tuple(
        {"kind": "simulated", "memory_bytes": 2**20, "flop_per_s": {"default": rate}, "memory_bytes_per_s": rate}
        for rate in (1e9, 2e9)
    )
    links = {"intra_node": {"bytes_per_s": BYTES_PER_S, "latency_s": LATENCY_S}}
    return build_config(cluster={"devices": devices, "links": links}, **changes)


def priced(search: Search, num_microbatches: int, schedule: str = "1f1b") -> tuple[Candidate, Prediction]:
    shape = Shape(name="any", strategy="pipeline", minibatch_size=22, num_microbatches=num_microbatches,
                  num_ranks=2, num_stages=2, schedule=schedule)  # fmt: skip
    candidate = search.price(shape, SEGMENTS)
    assert candidate.predicted is not None
    return candidate, candidate.predicted


def stage_s(search: Search, index: int, rows: int) -> tuple[float, float, float]:
    """Forward, backward and optimizer step of one stage."""
    cost = search.model.stage(SEGMENTS[index].first_layer, SEGMENTS[index].last_layer)
    device, microbatch = search.cluster.devices[index], cost.microbatch(rows)
    return microbatch.forward.seconds(device), microbatch.backward.seconds(device), cost.step.seconds(device)


def test_one_microbatch_takes_every_part_in_turn() -> None:
    """F0, message, F1, B1, message, B0, STEP0; the other step runs beside the last message."""
    search = Search(unlike_devices())
    (forward_0, backward_0, step_0), (forward_1, backward_1, _) = (stage_s(search, index, 22) for index in (0, 1))
    message_s = LATENCY_S + 22 * 9 * 4 / BYTES_PER_S
    expected = forward_0 + message_s + forward_1 + backward_1 + message_s + backward_0 + step_0
    assert priced(search, 1)[1].step_s == pytest.approx(expected, rel=1e-12)


def test_idle_is_what_no_computation_fills() -> None:
    search = Search(unlike_devices())
    _, predicted = priced(search, 1)
    busy_s = sum(sum(stage_s(search, index, 22)) for index in (0, 1))
    assert predicted.bubble_fraction == pytest.approx(1 - busy_s / (2 * predicted.step_s), rel=1e-12)


def test_one_device_is_never_idle() -> None:
    search = Search(build_config())
    shape = Shape(name="any", strategy="accumulate", minibatch_size=22, num_microbatches=3)
    predicted = search.price(shape, [Segment(0, 0, 3)]).predicted
    assert predicted is not None
    assert predicted.bubble_fraction == pytest.approx(0, abs=1e-12)
    assert predicted.communication_bytes == 0


@pytest.mark.parametrize("num_microbatches", [1, 2, 5])
def test_an_activation_and_a_gradient_of_every_example_cross_the_cut(num_microbatches: int) -> None:
    assert priced(Search(unlike_devices()), num_microbatches)[1].communication_bytes == 2 * 22 * 9 * 4


def test_rates_follow_from_the_step() -> None:
    _, predicted = priced(Search(unlike_devices()), 4)
    assert predicted.samples_per_s == pytest.approx(22 / predicted.step_s)
    assert predicted.device_seconds_per_sample == pytest.approx(2 * predicted.step_s / 22)
    assert predicted.relative_progress_s is None


def test_peaks_are_those_of_the_stages() -> None:
    candidate, predicted = priced(Search(unlike_devices()), 4)
    assert predicted.peak_bytes == tuple(stage.memory.peak_bytes for stage in candidate.stages)


def test_overflow_is_that_of_the_fullest_device() -> None:
    candidate, predicted = priced(Search(unlike_devices()), 4)
    assert candidate.overflow_bytes == max(predicted.peak_bytes) - 2**20


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_sums_over_layers_price_every_stage(activation: str) -> None:
    """The split's running sums equal the seconds of the stage itself, recomputed activations included."""
    search = Search(unlike_devices(model={"activation": activation}))
    seconds = Splitter(search.cluster, search.model, 7)._stage_seconds(7)
    for first in range(4):
        for last in range(first, 4):
            cost = search.model.stage(first, last).microbatch(7)
            device = search.cluster.devices[1]
            expected = cost.forward.seconds(device) + cost.backward.seconds(device)
            assert seconds(0, 1, first, last) == pytest.approx(expected, rel=1e-9)


def test_stages_go_where_they_are_fast() -> None:
    """The faster device takes more layers."""
    search = Search(
        unlike_devices(planner={"strategies": ("pipeline",), "schedules": ("gpipe", "1f1b"), "num_microbatches": (2,)})
    )
    for candidate in search.candidates():
        first, second = sorted(candidate.stages, key=lambda stage: stage.device_index)
        assert first.last_layer - first.first_layer < second.last_layer - second.first_layer
