"""Memory: the prediction, the ledger and the allocator agree to the byte, and the limit is honest both ways."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.errors import DeviceMemoryError
from partition.graph import Category
from partition.plan import Candidate, Search, compare
from partition.runtime import Fleet
from partition.runtime.device import RuntimeDevice
from partition.runtime.evaluation import evaluate
from tests.runtime.by_hand import peaks_of

Make = Callable[..., ExperimentConfig]


def random_experiment(make_config: Make, seed: int) -> ExperimentConfig:
    """Widths, depth, activation, loss, optimizer, minibatch and memory at random; the memory is tight."""
    choose = random.Random(seed)
    depth = choose.randint(1, 5)
    features = (*(choose.randint(1, 24) for _ in range(depth)), choose.randint(2, 8))
    optimizers: list[dict[str, Any]] = [
        {"name": "sgd", "lr": 0.01},
        {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        {"name": "adam", "lr": 0.01},
        {"name": "adamw", "lr": 0.01},
    ]
    minibatch_size = choose.randint(1, 40)
    config = make_config(
        features=features,
        activation=choose.choice(["identity", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu"]),
        loss=choose.choice(["cross_entropy", "mse"]),
        bias=choose.random() < 0.7,
        l2_penalty=choose.choice([0.0, 0.1]),
        number_format=choose.choice(["float32", "float64"]),
        optimizer=choose.choice(optimizers),
        minibatch_size=minibatch_size,
        num_devices=choose.randint(1, 4),
        planner={"num_microbatches": tuple({choose.randint(1, minibatch_size), choose.randint(1, minibatch_size)})},
    )
    whole = next(one for one in Search(config).candidates() if one.strategy == "whole")
    assert whole.predicted is not None
    limit = max(1, int(whole.predicted.peak_bytes[0] * choose.uniform(0.3, 1.1)))
    devices = tuple(device.model_copy(update={"memory_bytes": limit}) for device in config.cluster.devices)
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})


def force(search: Search, candidate: Candidate, dataset: Any) -> Fleet:
    """Two steps and an evaluation, whatever was predicted."""
    fleet = Fleet(search, candidate)
    for _ in range(2):
        fleet.train(dataset.train_x, dataset.train_y, np.arange(candidate.minibatch_size))
    return fleet


@pytest.mark.parametrize(
    "seed", [seed if seed < 10 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(40)]
)
def test_limit_is_honest_both_ways(make_config: Make, seed: int) -> None:
    """What is called feasible runs at exactly its predicted peak; what is not is stopped by the device."""
    config = random_experiment(make_config, seed)
    search, dataset = Search(config), load(config)
    for candidate in search.candidates():
        if not candidate.stages or candidate.sharding:
            continue
        if not candidate.feasible:
            with pytest.raises(DeviceMemoryError):
                force(search, candidate, dataset)
            continue
        fleet = force(search, candidate, dataset)
        predicted = peaks_of(candidate)
        assert [worker.device.peak_bytes for worker in fleet.workers] == predicted
        for short in {candidate.minibatch_size - 1, candidate.minibatch_size // 2} - {0}:
            fleet.train(dataset.train_x, dataset.train_y, np.arange(short))
        evaluate(fleet, dataset, 0.0)
        assert [worker.device.peak_bytes for worker in fleet.workers] == predicted


def test_an_evaluation_of_uneven_replicas_needs_no_more_than_was_planned(make_config: Make) -> None:
    """Three examples on two replicas: the second one trains on one, and once evaluated two at a time."""
    config = make_config(features=(17, 3, 2), activation="silu", minibatch_size=3, num_devices=2, planner={})
    search = Search(config)
    for candidate in search.candidates():
        if candidate.num_replicas == 2 and not candidate.sharding:
            fleet, dataset = force(search, candidate, load(config)), load(config)
            evaluate(fleet, dataset, 0.0)
            assert [worker.device.peak_bytes for worker in fleet.workers] == peaks_of(candidate)


def test_random_experiments_hold_both_kinds(make_config: Make) -> None:
    """The test above meets feasible and infeasible candidates, on one device and on several."""
    candidates = [one for seed in range(40) for one in Search(random_experiment(make_config, seed)).candidates()]
    for feasible in (True, False):
        sizes = {one.num_stages > 1 for one in candidates if one.stages and one.feasible is feasible}
        assert sizes == {True, False}


class Total:
    """The sum of all ledgers over time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.peak = 0
        original = RuntimeDevice.count

        def count(device: RuntimeDevice, num_bytes: int, category: Category, purpose: str) -> None:
            original(device, num_bytes, category, purpose)
            self.held += num_bytes
            self.peak = max(self.peak, self.held)

        monkeypatch.setattr(RuntimeDevice, "count", count)


def allocated(prof: Any) -> tuple[int, int]:
    """The highest and the last sum of the allocator's events."""
    events = [event for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak, current


@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize(
    ("activation", "loss", "bias", "optimizer"),
    [
        ("gelu", "cross_entropy", True, {"name": "sgd", "lr": 0.1, "momentum": 0.9}),
        ("relu", "mse", False, {"name": "adam", "lr": 0.01}),
        ("identity", "cross_entropy", True, {"name": "adamw", "lr": 0.01}),
        ("tanh", "mse", True, {"name": "sgd", "lr": 0.1}),
    ],
)
@pytest.mark.parametrize("name", ["whole", "accumulate-4", "pipeline-2x4-1f1b", "pipeline-4x4-gpipe"])
def test_ledger_equals_the_allocators_events(
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    number_format: str,
    activation: str,
    loss: str,
    bias: bool,
    optimizer: dict[str, object],
    name: str,
) -> None:
    """Temporaries that a kernel hides from the ledger, or a reference that outlives its buffer, would show here."""
    config = make_config(
        activation=activation,
        loss=loss,
        bias=bias,
        optimizer=optimizer,
        number_format=number_format,
        planner={"num_microbatches": (4,), "num_stages": (2, 4)},
    )
    search, dataset = Search(config), load(config)
    candidate = next(one for one in search.candidates() if one.name == name)
    gc.collect()
    total = Total(monkeypatch)
    with profile(profile_memory=True) as prof:
        fleet = force(search, candidate, dataset)
        fleet.train(dataset.train_x, dataset.train_y, np.arange(15))
    assert allocated(prof) == (total.peak, total.held)
    predicted = peaks_of(candidate)
    assert [worker.device.peak_bytes for worker in fleet.workers] == predicted


def test_step_that_is_the_peak_is_predicted_too(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One example and wide layers: the optimizer's norms outweigh every activation."""
    config = make_config(features=(1, 200, 200, 1), loss="mse", minibatch_size=1, optimizer={"name": "adam", "lr": 0.1})
    search, dataset = Search(config), load(config)
    candidate = next(one for one in search.candidates() if one.name == "whole")
    total = Total(monkeypatch)
    with profile(profile_memory=True) as prof:
        fleet = force(search, candidate, dataset)
    assert allocated(prof) == (total.peak, total.held)
    stage = search.model.stage(0, 2)
    static = sum(stage.static_bytes(1).values())
    assert fleet.workers[0].device.peak_bytes == static + stage.step.memory.peak_bytes


def test_out_of_memory_names_device_stage_action_and_bytes(make_config: Make) -> None:
    config = make_config(planner={"num_microbatches": (4,), "num_stages": (2,)})
    roomy = next(one for one in Search(config).candidates() if one.name == "pipeline-2x4-gpipe")
    fullest = max(roomy.stages, key=lambda stage: stage.memory.peak_bytes)
    limit = fullest.memory.peak_bytes - 1
    tight = make_config(memory_bytes=limit)
    search, dataset = Search(tight), load(tight)
    with pytest.raises(DeviceMemoryError) as caught:
        force(search, roomy, dataset)
    message = str(caught.value)
    assert fullest.device in message
    assert f"stage {fullest.stage_index}" in message
    assert f"action {caught.value.action}" in message
    assert f"wants {caught.value.wanted_bytes} bytes" in message
    assert f"{caught.value.free_bytes} of {limit} bytes are free" in message


def test_simulated_clock_runs_as_predicted(make_config: Make) -> None:
    config = make_config(planner={"num_microbatches": (1, 4, 7), "num_stages": (2, 3, 4)})
    search, dataset = Search(config), load(config)
    for candidate in compare(config).candidates:
        if candidate.feasible and candidate.predicted and not candidate.sharding:
            fleet = Fleet(search, candidate)
            result = fleet.train(dataset.train_x, dataset.train_y, np.arange(candidate.minibatch_size))
            assert result.step_s == pytest.approx(candidate.predicted.step_s, rel=1e-12)
