"""Memory of prediction: the prediction, the ledger and the allocator agree to the byte."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.graph import Category
from partition.plan import Search
from partition.plan.prediction import prediction_memory
from partition.runtime import Fleet, workers
from partition.runtime.device import RuntimeDevice
from tests.runtime.by_hand import find
from tests.runtime.random_experiments import COARSE, with_rules
from tests.runtime.test_memory import Total, allocated, random_experiment

Make = Callable[..., ExperimentConfig]


@pytest.mark.parametrize("seed", range(12))
def test_a_fleet_that_only_predicts_holds_what_was_predicted(make_config: Make, seed: int) -> None:
    """On every layout, fitting or not, for a pass that is full and for few examples."""
    config = random_experiment(make_config, seed)
    devices = tuple(device.model_copy(update={"memory_bytes": 2**30}) for device in config.cluster.devices)
    search = Search(config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})}))
    dataset = load(search.config)
    for candidate in search.candidates():
        if not candidate.stages or candidate.sharding:
            continue
        for num_examples in (1, 7, dataset.num_train):
            fleet = Fleet(search, candidate)
            for replica in range(candidate.num_replicas):
                list(fleet.predict(dataset.train_x, np.arange(num_examples), replica))
            predicted = [one.peak_beside_training_bytes for one in prediction_memory(search, candidate, num_examples)]
            assert [worker.device.peak_bytes for worker in fleet.workers] == predicted


@pytest.mark.parametrize("name", ["whole", "pipeline-2x4-1f1b", "pipeline-2x4-zbv"])
def test_blocks_and_workspaces_of_libraries_are_counted_as_the_ledger_counts_them(make_config: Make, name: str) -> None:
    """As on a GPU: every buffer in blocks, and the workspaces once for each rank, however many stages it has."""
    search = with_rules(Search(make_config(planner={"num_microbatches": (4,)})), COARSE)
    candidate, dataset = find(search, name), load(search.config)
    fleet = Fleet(search, candidate)
    list(fleet.predict(dataset.train_x, np.arange(7)))
    found = prediction_memory(search, candidate, 7)
    assert [worker.device.peak_bytes for worker in fleet.workers] == [one.peak_beside_training_bytes for one in found]
    assert all(one.workspace_bytes >= COARSE.library_bytes for one in found)


@pytest.mark.parametrize("name", ["whole", "accumulate-4", "pipeline-2x4-1f1b", "pipeline-2x4-zbv"])
def test_a_longer_pass_needs_no_more(make_config: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The default is a full pass; several passes, one after the other, hold as much."""
    monkeypatch.setattr(workers, "MOST_IN_ONE_PASS", 3)
    search = Search(make_config(planner={"num_microbatches": (4,)}))
    candidate, dataset = find(search, name), load(search.config)
    fleet = Fleet(search, candidate)
    list(fleet.predict(dataset.train_x))
    predicted = [one.peak_beside_training_bytes for one in prediction_memory(search, candidate)]
    assert [worker.device.peak_bytes for worker in fleet.workers] == predicted


@pytest.mark.parametrize("name", ["whole", "pipeline-3x4-1f1b"])
def test_the_parts_are_those_of_the_ledger_at_its_peak(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    search = Search(make_config(planner={"num_microbatches": (4,)}))
    candidate, dataset = find(search, name), load(search.config)
    fleet = Fleet(search, candidate)
    at_peak: dict[str, Counter[Category]] = {}
    original = RuntimeDevice.count

    def count(device: RuntimeDevice, num_bytes: int, category: Category, purpose: str) -> None:
        before = device.peak_bytes
        original(device, num_bytes, category, purpose)
        if device.peak_bytes > before:
            at_peak[device.name] = Counter(device.held_by_category)

    monkeypatch.setattr(RuntimeDevice, "count", count)
    list(fleet.predict(dataset.train_x))
    for worker, memory in zip(fleet.workers, prediction_memory(search, candidate), strict=True):
        held = at_peak[worker.device.name]
        assert held[Category.PARAMETERS] == memory.parameters_bytes
        assert held[Category.ACTIVATIONS] == memory.activations_bytes
        assert held[Category.BOUNDARY] == memory.boundary_bytes
        assert held[Category.DATA] == memory.data_bytes
        assert memory.peak_bytes == sum(held.values()) - memory.training_state_bytes


@pytest.mark.parametrize(("loss", "activation"), [("cross_entropy", "gelu"), ("mse", "relu")])
def test_ledger_equals_the_allocators_events(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, loss: str, activation: str
) -> None:
    """What the allocator hands out while one device predicts is the forward alone, less the parameters."""
    search = Search(make_config(loss=loss, activation=activation))
    candidate, dataset = find(search, "whole"), load(search.config)
    fleet = Fleet(search, candidate)
    gc.collect()
    total = Total(monkeypatch)
    with profile(profile_memory=True) as prof:
        list(fleet.predict(dataset.train_x))
    memory = prediction_memory(search, candidate)[0]
    assert allocated(prof) == (total.peak, total.held) == (memory.peak_bytes - memory.parameters_bytes, 0)
