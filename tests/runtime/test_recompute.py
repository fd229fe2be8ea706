"""Recomputation at work: the bits of a run without it, and the predicted bytes and seconds."""

from __future__ import annotations

import gc
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.plan import Candidate, Search
from partition.plan.plan_file import plan_record, read_plan
from partition.plan.shape import Shape, segments_of
from partition.plan.simulation import simulate_candidate
from partition.runtime import Fleet, joined, train
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config
from tests.runtime.events import peak, peaks_by_rank, recorded
from tests.runtime.random_experiments import candidate_of, random_experiment, recomputing
from tests.runtime.ranks import run_ranks
from tests.runtime.test_random_experiments import exercise, with_slow

Trained = tuple[list[tuple[str, float, float]], list[NDArray[Any]]]
"""Loss, norm and penalty of every step, and the parameters."""


def steps(fleet: Fleet, dataset: Dataset) -> Trained:
    """Two steps on whole minibatches and one on half of one."""
    size, found = fleet.candidate.minibatch_size, []
    for num_examples in (size, size, max(1, size // 2)):
        result = fleet.train(dataset.train_x, dataset.train_y, np.arange(num_examples))
        found.append((result.loss.hex(), result.grad_norm, result.penalty))
    return found, [tensor.detach().cpu().numpy().copy() for tensor in fleet.parameters()]


def same(one: Trained, other: Trained) -> bool:
    """Whether all bits are the same."""
    return one[0] == other[0] and all(map(np.array_equal, one[1], other[1]))


@pytest.mark.parametrize("seed", with_slow(range(6), range(150)))
def test_random_layers_computed_again_give_the_same_bits_in_the_predicted_bytes(seed: int) -> None:
    config, name = random_experiment(seed, has_blocks=seed % 2 == 1)
    search, dataset = Search(config), load(config)
    plain = candidate_of(search, name)
    expected = steps(Fleet(search, plain), dataset)
    again = recomputing(search, plain, seed)
    assert again.predicted is not None
    gc.collect()
    with recorded() as events:
        fleet = Fleet(search, again)
        found = steps(fleet, dataset)
        exercise(fleet, again, dataset)
    assert same(found, expected)
    predicted = dict(enumerate(again.predicted.peak_bytes))
    assert peaks_by_rank(events) == predicted
    assert fleet.peak_bytes() == predicted


@pytest.mark.parametrize("seed", range(150, 158))
def test_time_and_bytes_are_those_of_the_replay_on_the_simulated_clock(seed: int) -> None:
    config, name = random_experiment(seed)
    search, dataset = Search(config), load(config)
    again = recomputing(search, candidate_of(search, name), seed)
    assert again.predicted is not None
    fleet = Fleet(search, again)
    measured = fleet.train(dataset.train_x, dataset.train_y, np.arange(again.minibatch_size))
    assert measured.step_s == again.predicted.step_s
    simulated = simulate_candidate(search, again).replay
    assert simulated.makespan_s == again.predicted.step_s
    if again.num_replicas == 1:
        assert simulated.peak_bytes == again.predicted.peak_bytes


def recomputing_all(search: Search, name: str) -> Candidate:
    """The candidate on the same split, with stages that keep nothing."""
    plain = find(search, name)
    return search.price(Shape.of(plain), [segment.recomputing_all() for segment in segments_of(plain.stages)])


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv"])
def test_stages_that_keep_nothing_train_as_one_device_does(schedule: str, activation: str) -> None:
    config = build_config(activation=activation, planner={"num_microbatches": (4,), "num_stages": (2, 4)})
    search, dataset = Search(config), load(config)
    expected = steps(Fleet(search, find(search, "accumulate-4")), dataset)
    again = recomputing_all(search, f"pipeline-2x4-{schedule}")
    rows = [row for layout in search.layouts(again) for row in layout.schedule.rows]
    assert any(str(action) == "0R3" for row in rows for action in row)
    assert same(steps(Fleet(search, again), dataset), expected)


def test_gpipe_keeps_far_less_with_it() -> None:
    """Eight microbatches in flight keep their input alone, and one what its stage computes."""
    config = build_config(features=(8, *(64,) * 7, 8), minibatch_size=64,
                          planner={"num_microbatches": (8,), "num_stages": (2,), "schedules": ("gpipe",)})  # fmt: skip
    search = Search(config)
    plain, again = find(search, "pipeline-2x8-gpipe"), recomputing_all(search, "pipeline-2x8-gpipe")
    kept = [stage.memory.activations_bytes for stage in plain.stages]
    kept_again = [stage.memory.activations_bytes for stage in again.stages]
    assert kept_again[0] < kept[0] / 2
    assert kept_again[1] < kept[1] / 2


def in_processes(seed: int) -> tuple[int, int, int | None, list[tuple[str, float, float]]]:
    """Run by every rank: the bytes predicted, held and entered in the ledger, and the steps."""
    config, name = random_experiment(seed, num_ranks=2)
    search, dataset = Search(config), load(config)
    again = recomputing(search, candidate_of(search, name), seed)
    assert again.predicted is not None
    with joined(search, again, dataset.num_train) as world:
        gc.collect()
        with recorded() as events:
            fleet = Fleet(search, again, world)
            found, _ = steps(fleet, dataset)
            exercise(fleet, again, dataset)
        rank = fleet.workers[0].rank
        return again.predicted.peak_bytes[rank], peak(events), fleet.peak_bytes()[rank], found


@pytest.mark.parametrize("seed", with_slow([2000], range(2000, 2024)))
def test_two_processes_compute_again_what_one_keeps(seed: int) -> None:
    config, name = random_experiment(seed, num_ranks=2)
    search = Search(config)
    expected, _ = steps(Fleet(search, candidate_of(search, name)), load(config))
    for predicted, measured, entered, found in run_ranks(2, in_processes, seed):
        assert (measured, entered) == (predicted, predicted)
        assert found == expected


def limited(config: ExperimentConfig, limit_bytes: int) -> ExperimentConfig:
    """The experiment on devices of so many bytes."""
    devices = tuple(one.model_copy(update={"memory_bytes": limit_bytes}) for one in config.cluster.devices)
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})


def planned(changes: dict[str, Any]) -> list[Candidate]:
    """What fits with recomputation in nine tenths of the memory that is needed without."""
    config = build_config(features=(8, *(8,) * 12, 8), minibatch_size=64, **changes)
    search = Search(config)
    kept = [one for one in search.candidates() if one.predicted]
    least = min(max(one.predicted.peak_bytes) for one in kept if one.predicted)
    tight = Search(limited(config, least * 9 // 10))
    return [one for one in tight.candidates() if one.recompute and one.feasible]


@pytest.mark.parametrize(
    "planner",
    [
        {"strategies": ("accumulate", "recompute"), "num_microbatches": (2,)},
        {"strategies": ("pipeline", "recompute"), "num_microbatches": (4,), "num_stages": (2,), "schedules": ("1f1b",)},
        {"strategies": ("pipeline", "recompute"), "num_microbatches": (4,), "num_stages": (4,), "schedules": ("zbv",)},
        {"strategies": ("hybrid", "recompute"), "num_microbatches": (4,), "num_stages": (2,), "schedules": ("gpipe",)},
        {"strategies": ("data_parallel", "recompute"), "num_microbatches": (1,)},
    ],
)
def test_what_is_offered_under_a_limit_trains_in_it(planner: dict[str, Any], tmp_path: Any) -> None:
    """From its plan file, on devices that refuse one byte more than they have."""
    found = planned({"planner": planner, "num_devices": 4})
    assert found
    for candidate in found:
        config = build_config(features=(8, *(8,) * 12, 8), minibatch_size=64, planner=planner)
        search = Search(limited(config, candidate.stages[0].limit_bytes))
        path = tmp_path / f"{candidate.name}.json"

        path.write_text(json.dumps(plan_record(search.config, candidate, "")))
        read = read_plan(path, search)
        assert read == candidate
        result = train(search, read, load(search.config), lambda _: None)
        for device in result.summary.per_device:
            assert device.measured_peak_bytes == device.predicted_peak_bytes
