"""Counts and shapes are known without reading, and are those of the arrays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from partition.config import ExperimentConfig
from partition.data import check, describe
from partition.data.dataset import load

MakeConfig = Callable[..., ExperimentConfig]


@pytest.mark.parametrize(("source", "in_features"), [("digits", 64), ("mnist5k", 784), ("synthetic", 7)])
@pytest.mark.parametrize("test_fraction", [0.2, 1e-9, 0.999])
def test_describes_what_is_loaded(make_config: MakeConfig, source: str, in_features: int, test_fraction: float) -> None:
    config = make_config(source, in_features=in_features, minibatch_size=1, test_fraction=test_fraction)
    info, dataset = describe(config), load(config)
    assert dataset.train_x.shape == (info.num_train, info.in_features)
    assert dataset.test_x.shape == (info.num_test, info.in_features)
    assert len(dataset.train_y) == dataset.num_train == info.num_train >= 1
    assert len(dataset.test_y) == dataset.num_test == info.num_test >= 1
    assert info.num_examples == info.num_train + info.num_test


def test_a_fifth_is_held_out(make_config: MakeConfig) -> None:
    info = describe(make_config("mnist5k", in_features=784))
    assert (info.num_train, info.num_test) == (4000, 1000)
    assert (info.in_features, info.num_classes, info.task) == (784, 10, "classification")


@pytest.mark.parametrize("minibatch_size", [1, 249, 251, 10_000])
def test_synthetic_data_is_enough_for_any_minibatch(make_config: MakeConfig, minibatch_size: int) -> None:
    info = describe(make_config("synthetic", minibatch_size=minibatch_size))
    assert info.num_train >= max(4 * minibatch_size, 1000)
    assert info.num_train <= max(4 * minibatch_size, 1000) + 1


def test_describing_the_largest_experiment_allocates_nothing(make_config: MakeConfig) -> None:
    config = make_config("synthetic", in_features=2**20, minibatch_size=2**28)
    tracemalloc.start()
    assert describe(config).num_train >= 2**30
    assert check(config) == []
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100_000


def test_a_model_that_fits_its_data_has_no_problem(make_config: MakeConfig) -> None:
    assert check(make_config("digits")) == []
    assert check(make_config("digits", out_features=12)) == []
    assert check(make_config("synthetic", in_features=3, out_features=2, minibatch_size=5000)) == []


def test_every_mismatch_is_told_at_once_with_its_numbers(make_config: MakeConfig) -> None:
    problems = check(make_config("mnist5k", in_features=100, out_features=9, minibatch_size=4001), file="a.yaml")
    assert [str(problem) for problem in problems] == [
        "a.yaml: model.in_features: is 100, but an example of mnist5k has 784 features; "
        "set model.in_features to 784 or take another data.source",
        "a.yaml: model.out_features: is 9, but mnist5k has 10 classes; set model.out_features to 10",
        "a.yaml: training.minibatch_size: is 4001, but mnist5k has 4000 training examples (5000 less 1000 held out); "
        "set training.minibatch_size to 4000 or less",
    ]


def test_a_minibatch_of_all_training_examples_is_admitted(make_config: MakeConfig) -> None:
    assert check(make_config("mnist5k", in_features=784, minibatch_size=4000)) == []


def test_too_few_synthetic_examples_are_told_with_both_remedies(make_config: MakeConfig) -> None:
    (problem,) = check(make_config("synthetic", num_examples=50, minibatch_size=41))
    assert problem.key == "training.minibatch_size"
    assert "is 41, but synthetic has 40 training examples (50 less 10 held out)" in problem.message
    assert "remove data.num_examples" in problem.message
