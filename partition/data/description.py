"""Counts and shapes of a data set, known without reading it, and whether a model can learn from it.

Neither NumPy nor torch is imported here: headers of files are read as bytes, the lines of a table are counted. Only a
Dataset named by its import path brings whatever it imports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from partition.config import ExperimentConfig
from partition.config.data import DEFAULT_TEST_FRACTION
from partition.data.own import OWN_SOURCES, OwnData, outline_own, target_kind
from partition.data.refusal import AbsentDataError, DataError
from partition.errors import Problem

Task = Literal["classification", "regression", "any"]

# Enough that an epoch of synthetic data is a few minibatches, and that small minibatches have something to learn from.
SYNTHETIC_MINIBATCHES = 4
SYNTHETIC_MIN_TRAIN = 1000


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a plan needs to know of a data set."""

    source: str
    num_examples: int
    """num_train + num_test."""
    num_train: int
    num_test: int
    in_features: int
    num_classes: int | None
    """None where the targets take the shape of the model's output, or are not counted without reading them."""
    task: Task
    """`any`: class indices for a cross-entropy, real numbers for a squared error."""


@dataclass(frozen=True, kw_only=True)
class BundledSource:
    """A data set that a Python package ships."""

    num_examples: int
    in_features: int
    num_classes: int | None
    """None where the targets are real numbers, one an example."""


BUNDLED_SOURCES = {
    "digits": BundledSource(num_examples=1797, in_features=64, num_classes=10),
    "mnist5k": BundledSource(num_examples=5000, in_features=784, num_classes=10),
    "diabetes": BundledSource(num_examples=442, in_features=10, num_classes=None),
}


def describe(config: ExperimentConfig) -> DataInfo:
    """The counts and shapes of an experiment's data; no values are read.

    Synthetic data is described from the model and the minibatch: without `data.num_examples` there are four
    minibatches to train on, and at least 1,000 examples.

    Raises:
        DataError: the user's files cannot be data of this model; AbsentDataError where one is not there.

    >>> describe(config).num_train  # doctest: +SKIP
    4000
    """
    if config.data.source in OWN_SOURCES:
        return describe_own(config, outline_own(config))
    bundled = BUNDLED_SOURCES.get(config.data.source)
    num_examples = _count_synthetic(config) if bundled is None else bundled.num_examples
    num_test = count_test(num_examples, config.data.test_fraction)
    return DataInfo(
        source=config.data.source,
        num_examples=num_examples,
        num_train=num_examples - num_test,
        num_test=num_test,
        in_features=config.model.in_features if bundled is None else bundled.in_features,
        num_classes=None if bundled is None else bundled.num_classes,
        task="any" if bundled is None else "regression" if bundled.num_classes is None else "classification",
    )


def describe_own(config: ExperimentConfig, own: OwnData) -> DataInfo:
    """The counts and shapes of data that has been outlined."""
    kind = target_kind(config, own.train.targets)
    num_rows = own.train.features.num_rows
    num_test = count_test(num_rows, config.data.test_fraction) if own.held_out is None else 0
    num_apart = 0 if own.held_out is None else own.held_out.features.num_rows
    return DataInfo(
        source=config.data.source,
        num_examples=num_rows + num_apart,
        num_train=num_rows - num_test,
        num_test=num_test + num_apart,
        in_features=own.train.features.width,
        num_classes=None,
        task="regression" if kind == "values" else "classification",
    )


def _count_synthetic(config: ExperimentConfig) -> int:
    if config.data.num_examples is not None:
        return config.data.num_examples
    num_train = max(SYNTHETIC_MINIBATCHES * config.training.minibatch_size, SYNTHETIC_MIN_TRAIN)
    return math.ceil(num_train / (1 - (config.data.test_fraction or DEFAULT_TEST_FRACTION)))


def count_test(num_examples: int, test_fraction: float | None) -> int:
    """The nearest whole number that leaves at least one example on each side."""
    return min(max(1, round(num_examples * (test_fraction or DEFAULT_TEST_FRACTION))), num_examples - 1)


def check(config: ExperimentConfig, *, file: str = "") -> list[Problem]:
    """Everything that keeps this model from learning from this data, each with the numbers and the key to change.

    `file` is the one that the experiment was read from; which line of it, only its reader knows.

    Raises:
        AbsentDataError: a file of the user's is not there, so that nothing can be said.
    """
    try:
        info = describe(config)
    except AbsentDataError:
        raise
    except DataError as error:
        return [Problem(file=file, line=None, key=error.key, message=error.message)]
    found = [*_check_shapes(config, info), *_check_counts(config, info)]
    return [Problem(file=file, line=None, key=key, message=message) for key, message in found]


def _check_shapes(config: ExperimentConfig, info: DataInfo) -> Iterator[tuple[str, str]]:
    model = config.model
    if model.in_features != info.in_features:
        yield (
            "model.in_features",
            f"is {model.in_features}, but an example of {info.source} has {info.in_features} features; "
            f"set model.in_features to {info.in_features} or take another data.source",
        )
    if info.num_classes is not None and model.out_features < info.num_classes:
        yield (
            "model.out_features",
            f"is {model.out_features}, but {info.source} has {info.num_classes} classes; "
            f"set model.out_features to {info.num_classes}",
        )

    if info.source in BUNDLED_SOURCES and info.task == "regression":
        yield from _check_bundled_regression(config, info)


def _check_bundled_regression(config: ExperimentConfig, info: DataInfo) -> Iterator[tuple[str, str]]:
    if config.model.has_class_targets or config.model.has_fraction_targets:
        yield "model.loss", f"is {config.model.loss}, but {info.source} has real numbers to learn; set model.loss: mse"
    if config.model.out_features != 1:
        yield (
            "model.out_features",
            f"is {config.model.out_features}, but {info.source} has 1 value an example; set model.out_features to 1",
        )


def _check_counts(config: ExperimentConfig, info: DataInfo) -> Iterator[tuple[str, str]]:
    minibatch_size = config.training.minibatch_size
    if minibatch_size > info.num_train:
        yield (
            "training.minibatch_size",
            f"is {minibatch_size}, but {info.source} has {info.num_train} training examples "
            f"({info.num_examples} less {info.num_test} held out); {_remedy(info)}",
        )


def _remedy(info: DataInfo) -> str:
    remedy = f"set training.minibatch_size to {info.num_train} or less"
    if info.source == "synthetic":
        return f"{remedy}, or remove data.num_examples, and there will be enough"
    return remedy
