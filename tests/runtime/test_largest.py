"""The largest minibatch that is predicted to fit runs; one example more is stopped by its device."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.errors import DeviceMemoryError
from partition.plan import Search, Segment
from partition.plan.largest import LargestFit, largest_fitting
from partition.plan.layout import Layout
from partition.plan.shape import Shape
from partition.plan.splitter import Splitter
from partition.runtime import Fleet

Make = Callable[..., ExperimentConfig]
NUM_EXAMPLES = 400


def random_search(make_config: Make, seed: int) -> tuple[Search, int]:
    """An experiment, a number of microbatches, and devices of any size between too small and more than enough."""
    choose = random.Random(seed)
    features = (*(choose.randint(1, 24) for _ in range(choose.randint(2, 7))), choose.randint(2, 8))
    optimizers: list[dict[str, Any]] = [
        {"name": "sgd", "lr": 0.01},
        {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        {"name": "adam", "lr": 0.01},
    ]
    config = make_config(
        features=features,
        activation=choose.choice(["identity", "relu", "gelu", "tanh", "silu"]),
        loss=choose.choice(["cross_entropy", "mse"]),
        bias=choose.random() < 0.7,
        number_format=choose.choice(["float32", "float64"]),
        optimizer=choose.choice(optimizers),
        num_devices=choose.randint(1, 5),
    )
    whole = next(one for one in Search(config).candidates() if one.strategy == "whole")
    assert whole.predicted is not None
    middle = whole.predicted.peak_bytes[0] * choose.uniform(0.4, 1.6)
    is_alike = choose.random() < 0.5
    devices = tuple(
        device.model_copy(update={"memory_bytes": int(middle * (1 if is_alike else choose.uniform(0.8, 1.2)))})
        for device in config.cluster.devices
    )
    data = config.data.model_copy(update={"num_examples": NUM_EXAMPLES})
    cluster = config.cluster.model_copy(update={"devices": devices})
    return Search(config.model_copy(update={"cluster": cluster, "data": data})), choose.randint(2, 6)


def shape_of(fit: LargestFit, minibatch_size: int) -> Shape:
    """The same way on another minibatch: as many microbatches, or as many as examples where they have one each."""
    has_one_each = fit.strategy == "accumulate" and fit.num_microbatches == fit.minibatch_size
    return Shape(
        name=fit.name,
        strategy=fit.strategy,
        minibatch_size=minibatch_size,
        num_microbatches=minibatch_size if has_one_each else fit.num_microbatches,
        num_ranks=fit.num_ranks,
        num_stages=len({one.stage_index for one in fit.stages or fit.one_more}),
        num_replicas=fit.num_replicas,
        schedule=fit.schedule,
    )


def step(search: Search, shape: Shape, segments: Sequence[Segment], dataset: Any) -> list[int]:
    """Train one step whatever is predicted; what each device held at most."""
    fleet = Fleet(search, search.price(shape, segments))
    fleet.train(dataset.train_x, dataset.train_y, np.arange(shape.minibatch_size))
    return [worker.device.peak_bytes for worker in fleet.workers]


def resplit(search: Search, shape: Shape) -> list[Sequence[Segment]]:
    """Every split that the planner would take for a shape."""
    layout = Layout.of(shape.schedule, shape.num_ranks, shape.sizes[0], shape.num_stages, shape.num_replicas > 1)
    cluster = search.replica_cluster(shape.num_replicas, shape.num_ranks)
    return list(Splitter(cluster, search.model, sum(shape.sizes[0])).splits(layout))


def check_boundary(search: Search, fit: LargestFit, dataset: Any) -> None:
    """The largest runs at exactly its predicted peaks; one more does not, on its split or on one made for it."""
    assert fit.minibatch_size < dataset.num_train, "the test needs so many examples"
    more = shape_of(fit, fit.minibatch_size + 1)
    if fit.minibatch_size:
        shape = shape_of(fit, fit.minibatch_size)
        assert max(map(max, shape.sizes)) == fit.microbatch_size
        assert tuple(step(search, shape, fit.segments, dataset)) == fit.peak_bytes
    else:
        more = shape_of(fit, fit.num_microbatches * fit.num_replicas)
    closest = [Segment(of.device_index, of.first_layer, of.last_layer) for of in fit.one_more if of.replica_index == 0]
    splits = resplit(search, more) if fit.num_ranks > 1 else []
    for segments in [fit.segments, closest, *splits] if fit.minibatch_size else [closest, *splits]:
        with pytest.raises(DeviceMemoryError):
            step(search, more, segments, dataset)


def check_all(make_config: Make, seed: int) -> list[LargestFit]:
    search, count = random_search(make_config, seed)
    dataset = load(search.config)
    fits = [fit for fit in largest_fitting(search, (count,)) if fit.minibatch_size < dataset.num_train]
    for fit in fits:
        check_boundary(search, fit, dataset)
    return fits


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_runs_and_one_more_is_stopped(make_config: Make, seed: int) -> None:
    check_all(make_config, seed)


@pytest.mark.slow
def test_the_largest_of_every_strategy_at_twenty_random_limits(make_config: Make) -> None:
    """And no strategy is left out for being too large, or too small, everywhere."""
    found: dict[str, list[int]] = {}
    for seed in range(100, 120):
        for fit in check_all(make_config, seed):
            found.setdefault(fit.strategy, []).append(fit.minibatch_size)
    assert set(found) == {"whole", "accumulate", "recompute", "pipeline", "data_parallel", "hybrid"}
    assert all(sum(size > 0 for size in sizes) >= 5 for sizes in found.values())
