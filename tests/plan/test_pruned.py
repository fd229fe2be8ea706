"""The search that leaves out what cannot matter: held against the full one."""

from __future__ import annotations

import json
import random

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Search, comparison_record
from partition.plan.compare import choose, compare_with
from partition.plan.pruned import PrunedSearch

from .conftest import build_config, with_memory


def random_config(seed: int) -> ExperimentConfig:
    """Layers of unlike widths, on up to 5 devices with or without room, one objective of four."""
    choose = random.Random(seed)
    widths = tuple(choose.randint(4, 60) for _ in range(choose.randint(3, 9)))
    objective = choose.choice(["time_to_target", "step_time", "device_seconds", "fewest_devices"])
    config = build_config(
        model={"in_features": 12, "hidden_features": widths, "activation": choose.choice(["relu", "gelu"])},
        training={"minibatch_size": choose.choice([16, 22, 48])},
        planner={"objective": objective},
    )
    return with_memory(config, *[choose.choice([2**20, 60_000, 150_000])] * choose.randint(2, 5))


@pytest.mark.parametrize("seed", range(24))
def test_the_choice_its_margin_and_the_best_of_every_kind_are_those_of_the_full_search(seed: int) -> None:
    search = Search(random_config(seed))
    every = {one.name: one for one in search.candidates()}
    found, unpriced = PrunedSearch(search=search).run()
    objective = search.settings.planner.objective
    assert all(every[one.name] == one for one in found)
    assert choose(found, objective) == choose(tuple(every.values()), objective)
    for way in unpriced:
        step_s = _step_s(every[way.name])
        assert way.least_step_s <= step_s
        kind = [one for one in found if (one.strategy, one.num_devices) == (way.strategy, way.num_devices)]
        assert min(_step_s(one) for one in kind if one.feasible) <= step_s
    full, pruned = compare_with(search, is_complete=True).certificate, compare_with(search).certificate
    assert (full and full.cost_error_margin) == (pruned and pruned.cost_error_margin)


@pytest.mark.parametrize("seed", range(24, 34))
def test_the_first_of_all_are_found_where_kinds_are_not_sought(seed: int) -> None:
    search = Search(random_config(seed))
    found, _ = PrunedSearch(search=search, has_kinds=False).run()
    objective = search.settings.planner.objective
    assert choose(found, objective) == choose(search.candidates(), objective)


@pytest.mark.parametrize("seed", range(8))
def test_no_split_of_any_way_is_below_its_bound(seed: int) -> None:
    search = Search(random_config(seed))
    for shape in search.shapes():
        for candidate in search.price_all(shape):
            if candidate.predicted is not None:
                assert search.least_step_s(shape) <= candidate.predicted.step_s
                plain = not candidate.recompute
                assert not plain or search.least_step_on_split_s(shape) <= candidate.predicted.step_s


def test_two_searches_give_the_same_bytes() -> None:
    documents = [json.dumps(comparison_record(compare_with(Search(random_config(3))))) for _ in range(2)]
    assert documents[0] == documents[1]


def _step_s(candidate: Candidate) -> float:
    assert candidate.predicted is not None
    return candidate.predicted.step_s


@pytest.mark.parametrize("seed", range(30, 54))
def test_no_split_over_devices_good_at_different_things_is_below_its_bound(seed: int) -> None:
    """Of one the arithmetic is fast, of another the memory: a layer each is less than an even share of the whole."""
    search = Search(unlike_config(seed))
    for shape in search.shapes():
        step_s = _step_s(search.best_of(shape))
        assert 0.0 < search.least_step_s(shape) <= step_s, shape.name


def unlike_config(seed: int) -> ExperimentConfig:
    """Layers of very unlike widths, on two or three devices whose rates are in no proportion."""
    choose = random.Random(seed)
    device = {"kind": "simulated", "memory_bytes": 2**34}
    devices = tuple(
        {**device, "flop_per_s": {"default": 10 ** choose.uniform(10, 13)},
         "memory_bytes_per_s": 10 ** choose.uniform(9, 12)}
        for _ in range(choose.choice([2, 2, 3]))
    )  # fmt: skip
    return build_config(
        model={
            "in_features": choose.choice([8, 2048]),
            "hidden_features": tuple(choose.choice([8, 64, 512, 2048]) for _ in range(choose.randint(1, 4))),
            "activation": "relu",
        },
        training={"minibatch_size": choose.choice([4, 64, 512])},
        cluster={"devices": devices, "links": {"intra_node": {"bytes_per_s": 1e13, "latency_s": 0}}},
        planner={"strategies": ("pipeline",), "num_microbatches": (1, 2, 4)},
    )
