"""Random experiments: every rank's predicted peak is the allocator's own, to the byte.

What is measured are the events of torch's CPU allocator (`tests.runtime.events`); the ledger is held against them, and
the prediction against both. In one process every event belongs to the rank whose turn it was; under torchrun a process
is a rank, and all that its allocator ever held at once must be what was predicted for it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.plan import Candidate, Search
from partition.plan.simulation import simulate_candidate
from partition.runtime import Fleet, joined
from tests.runtime.events import Event, peak, peaks_by_rank, recorded, without_scratch
from tests.runtime.random_experiments import (
    ACTIVATIONS,
    COARSE,
    FORMATS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    STRATEGIES,
    candidate_of,
    random_experiment,
    recomputing,
    with_rules,
)
from tests.runtime.ranks import run_ranks

FAST, ALL = range(6), range(220)
BLOCKS_FAST, ALL_BLOCKS = range(5), range(250)
BFLOAT16_FAST, ALL_BFLOAT16 = range(2), range(240)
OF_TWO_RANKS_FAST, OF_TWO_RANKS = range(1000, 1002), range(1000, 1036)


def exercise(fleet: Fleet, candidate: Candidate, dataset: Dataset) -> None:
    """Two steps, two on short minibatches, and a prediction of every held-out example by every replica here."""
    size = candidate.minibatch_size
    for num_examples in (size, size, max(1, size - 1), max(1, size // 2)):
        fleet.train(dataset.train_x, dataset.train_y, np.arange(num_examples))
    for replica in sorted({worker.replica for worker in fleet.workers}):
        list(fleet.predict(dataset.test_x, None, replica))


def exercised(search: Search, candidate: Candidate, dataset: Dataset) -> tuple[Fleet, list[Event]]:
    """A fleet after its exercise, and what the allocator did from before there was one."""
    gc.collect()
    with recorded() as events:
        fleet = Fleet(search, candidate)
        exercise(fleet, candidate, dataset)
    return fleet, events


def with_slow(fast: Iterable[int], every: Iterable[int]) -> list[Any]:
    """All seeds, of which those that are not among the fast ones are marked slow."""
    quick = set(fast)
    return [seed if seed in quick else pytest.param(seed, marks=pytest.mark.slow) for seed in every]


def check_peaks(config: ExperimentConfig, name: str) -> None:
    """Predicted, entered in the ledger, and counted from the allocator's events: the same for every rank."""
    search, dataset = Search(config), load(config)
    candidate = candidate_of(search, name)
    assert candidate.predicted is not None
    fleet, events = exercised(search, candidate, dataset)
    predicted = dict(enumerate(candidate.predicted.peak_bytes))
    assert peaks_by_rank(events) == predicted
    assert fleet.peak_bytes() == predicted


@pytest.mark.parametrize("seed", with_slow(FAST, ALL))
def test_predicted_peak_is_the_allocators(seed: int) -> None:
    check_peaks(*random_experiment(seed))


@pytest.mark.parametrize("seed", with_slow(BLOCKS_FAST, ALL_BLOCKS))
def test_predicted_peak_of_blocks_is_the_allocators(seed: int) -> None:
    """Blocks of all kinds in any order: one builder strings their programs together, the planner prices them."""
    check_peaks(*random_experiment(seed, has_blocks=True))


@pytest.mark.parametrize("seed", with_slow(BFLOAT16_FAST, ALL_BFLOAT16))
def test_predicted_peak_in_bfloat16_is_the_allocators_apart_from_scratch(seed: int) -> None:
    """Every temporary of another format is an instruction. What oneDNN takes in a product is told apart.

    Every second is of blocks, of every three one computes some of its layers again.
    """
    config, name = random_experiment(seed, has_blocks=seed % 2 == 0, number_format="bfloat16")
    search, dataset = Search(config), load(config)
    candidate = candidate_of(search, name)
    if seed % 3 == 0:
        candidate = recomputing(search, candidate, seed)
    assert candidate.predicted is not None
    fleet, events = exercised(search, candidate, dataset)
    ours, _ = without_scratch(events)
    predicted = dict(enumerate(candidate.predicted.peak_bytes))
    assert peaks_by_rank(ours) == predicted
    assert fleet.peak_bytes() == predicted


def peaks_of_rank(seed: int) -> tuple[int, int, int | None]:
    """Run by every rank: what was predicted for it, what its allocator held at most, what its ledger says."""
    config, name = random_experiment(seed, num_ranks=2)
    search, dataset = Search(config), load(config)
    candidate = candidate_of(search, name)
    assert candidate.predicted is not None
    with joined(search, candidate, dataset.num_train) as world:
        gc.collect()
        with recorded() as events:
            fleet = Fleet(search, candidate, world)
            exercise(fleet, candidate, dataset)
        rank = fleet.workers[0].rank
        return candidate.predicted.peak_bytes[rank], peak(events), fleet.peak_bytes()[rank]


@pytest.mark.parametrize("seed", with_slow(OF_TWO_RANKS_FAST, OF_TWO_RANKS))
def test_predicted_peak_is_the_allocators_in_two_processes(seed: int) -> None:
    for predicted, measured, entered in run_ranks(2, peaks_of_rank, seed):
        assert (measured, entered) == (predicted, predicted)


@pytest.mark.parametrize("seed", with_slow(range(25, 29), range(120)))
def test_blocks_of_512_bytes_are_predicted_and_entered_in_the_ledger(seed: int) -> None:
    """Every buffer of the true allocator, each rounded on its own, gives the predicted peak."""
    config, name = random_experiment(seed)
    search, dataset = with_rules(Search(config), COARSE), load(config)
    candidate = candidate_of(search, name)
    assert candidate.predicted is not None
    fleet, events = exercised(search, candidate, dataset)
    predicted = dict(enumerate(candidate.predicted.peak_bytes))
    assert fleet.peak_bytes() == predicted
    assert {rank: peak + COARSE.library_bytes for rank, peak in peaks_by_rank(events, COARSE).items()} == predicted
    replayed = simulate_candidate(search, candidate).replay
    assert {rank.peak_bytes for rank in replayed.ranks} <= set(predicted.values())


@pytest.mark.slow
def test_random_experiments_are_of_every_kind() -> None:
    """Nothing that can be chosen is left out, and microbatches are cut evenly and unevenly."""
    met = set[object]()
    for seed in ALL:
        config, name = random_experiment(seed)
        candidate = candidate_of(Search(config), name)
        met |= {candidate.strategy, candidate.schedule, config.model.activation, config.model.loss}
        met |= {
            config.precision.compute,
            ("bias", config.model.bias),
            ("clipped", bool(config.optimizer.max_grad_norm)),
        }
        met.add((config.optimizer.name, config.optimizer.momentum > 0))
        met.add(("even", candidate.minibatch_size % (candidate.num_replicas * candidate.num_microbatches) == 0))
    optimizers = {(of["name"], "momentum" in of) for of in OPTIMIZERS}
    pairs = {(what, value) for what in ("bias", "clipped", "even") for value in (True, False)}
    losses = {of["loss"] for of in LOSSES}
    assert met >= {*STRATEGIES, *SCHEDULES, *ACTIVATIONS, *losses, *FORMATS} | optimizers | pairs
