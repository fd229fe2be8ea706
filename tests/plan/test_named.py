"""Candidates by their names: those of a comparison, those that `largest` names, and names of nothing."""

from __future__ import annotations

import random

import pytest

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Search
from partition.plan.largest import LargestFit, largest_fitting
from partition.plan.named import candidate_named

from .conftest import build_config, with_memory


def random_config(seed: int) -> ExperimentConfig:
    """Devices of about what a plan needs, alike or not; any numbers of microbatches, or the usual ones."""
    choose = random.Random(seed)
    widths = tuple(choose.randint(3, 40) for _ in range(choose.randint(3, 7)))
    model = {"in_features": widths[0], "hidden_features": widths[1:-1], "out_features": widths[-1]}
    planner = choose.choice([{}, {"num_microbatches": (2, 3)}, {"schedules": ("gpipe", "zbv", "interleaved_1f1b")}])
    config = build_config(model=model, planner=planner)
    even = 8 * Search(config).network.parameter_elements
    num_devices = choose.randint(1, 4)
    unlike = [int(even * choose.uniform(0.5, 3)) for _ in range(num_devices)]
    return with_memory(config, *choose.choice([unlike, unlike[:1] * num_devices]))


@pytest.mark.parametrize("seed", range(10))
def test_every_candidate_of_a_comparison_is_found_by_its_name(seed: int) -> None:
    config = random_config(seed)
    for candidate in Search(config).candidates():
        named = candidate_named(Search(config), candidate.name)
        if candidate.feasible or candidate.num_stages == candidate.ranks_per_replica:
            assert named == candidate
        else:
            assert named is not None, "it may fit on a split that the comparison has not tried"


def at_size(config: ExperimentConfig, size: int) -> Search:
    """The experiment with another minibatch."""
    training = config.training.model_copy(update={"minibatch_size": size})
    return Search(config.model_copy(update={"training": training}))


def check(config: ExperimentConfig, fit: LargestFit) -> None:
    """The name is that of a candidate that fits with as many bytes, and for one example more of one that does not."""
    found = candidate_named(at_size(config, fit.minibatch_size), fit.name)
    assert found is not None
    assert found.feasible
    assert found.predicted is not None
    assert (found.num_microbatches, found.schedule) == (fit.num_microbatches, fit.schedule)
    assert found.predicted.peak_bytes == fit.peak_bytes
    if fit.one_more and fit.num_microbatches < fit.minibatch_size:
        more = candidate_named(at_size(config, fit.minibatch_size + 1), fit.name)
        assert more is not None
        assert not more.feasible


@pytest.mark.slow
def test_every_largest_minibatch_can_be_had_by_the_name_it_is_told_with() -> None:
    """Names such as data_parallel-2x8 were printed and then refused, where the planner would not consider them."""
    checked = 0
    for seed in range(10):
        config = random_config(seed)
        count = random.Random(seed).choice([1, 2, 3, 5])
        fits = [fit for fit in largest_fitting(Search(config), (count,)) if 0 < fit.minibatch_size < 5000]
        for fit in fits:
            check(config, fit)
        checked += len(fits)
    assert checked > 50


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accumulate-7", ("accumulate", 22, 7, 1, 1, 1)),
        ("shrink-9", ("shrink", 9, 1, 1, 1, 1)),
        ("pipeline-2x3-1f1b", ("pipeline", 22, 3, 2, 2, 1)),
        ("pipeline-2x5-zbv", ("pipeline", 22, 5, 2, 4, 1)),
        ("data_parallel-3x7", ("data_parallel", 22, 7, 3, 1, 3)),
        ("hybrid-2x2x11-gpipe", ("hybrid", 22, 11, 4, 2, 2)),
        ("sharded-3", ("sharded", 22, 1, 3, 1, 3)),
    ],
)
def test_what_the_planner_would_not_consider_is_priced(
    name: str, expected: tuple[str, int, int, int, int, int], config: ExperimentConfig
) -> None:
    found = candidate_named(Search(config), name)
    assert found is not None
    assert found.feasible
    assert (found.name, found.cost_source) == (name, "rates of the experiment file")
    figures = (found.strategy, found.minibatch_size, found.num_microbatches, found.num_devices, found.num_stages)
    assert (*figures, found.num_replicas) == expected


@pytest.mark.parametrize(
    "name",
    [
        "", "nope", "whole-2", "whole@simulated:0", "accumulate", "accumulate-1", "accumulate-07", "accumulate--2",
        "accumulate-2 ", "accumulate-2-recompute", "shrink-22", "shrink-0", "shrink-9999999999999", "pipeline-2x4",
        "pipeline-1x4-1f1b", "pipeline-2x4-forward_only", "pipeline-2x4x4-1f1b", "hybrid-1x2x4-1f1b",
        "hybrid-2x1x4-1f1b", "data_parallel-1x4", "data_parallel-4", "sharded-1", "sharded-2-recompute",
        "accumulate-16385", "\u0661",
    ],
)  # fmt: skip
def test_other_names_are_of_no_candidate(name: str, config: ExperimentConfig) -> None:
    assert candidate_named(Search(config), name) is None


def test_of_unlike_devices_one_is_named(config: ExperimentConfig) -> None:
    search = Search(with_memory(config, 2**20, 2**20, 2**21))
    names = ("accumulate-7@simulated:0", "accumulate-7@simulated:2")
    found = [candidate_named(search, name) for name in names]
    assert [(one.name, one.stages[0].device_index) for one in found if one] == [(names[0], 0), (names[1], 2)]
    assert candidate_named(search, "accumulate-7") is None
    assert candidate_named(search, "accumulate-7@simulated:1") is None
    assert candidate_named(search, "hybrid-2x2x4-1f1b") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pipeline-9x4-1f1b", "pipeline-9x4-1f1b takes 9 devices, there are 4; take one of fewer"),
        ("data_parallel-999999999x16384", "takes 999999999 devices, there are 4"),
        ("recompute-4", "recompute-4: nothing has to be computed again, it fits as it is; take it without"),
        ("data_parallel-2x4-recompute", "data_parallel-2x4-recompute: nothing has to be computed again"),
    ],
)
def test_what_cannot_be_is_refused(name: str, words: str, config: ExperimentConfig) -> None:
    with pytest.raises(PartitionError, match=words):
        candidate_named(Search(config), name)


def test_more_microbatches_than_examples_have_no_layout(config: ExperimentConfig) -> None:
    found = candidate_named(Search(config), "pipeline-2x16384-1f1b")
    assert found is not None
    assert not found.stages
    assert found.reason == "16384 microbatches, but the minibatch has 22 examples; take num_microbatches <= 22"


def test_of_unlike_devices_what_is_refused_is_named_with_its_device_too(config: ExperimentConfig) -> None:
    """Two candidates were both called accumulate-30."""
    unlike = with_memory(config, 2**20, 2**21)
    planner = unlike.planner.model_copy(update={"num_microbatches": (30,), "strategies": ("accumulate",)})
    names = [one.name for one in Search(unlike.model_copy(update={"planner": planner})).candidates()]
    assert names == ["accumulate-30@simulated:0", "accumulate-30@simulated:1"]
