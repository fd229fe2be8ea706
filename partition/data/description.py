"""Counts and shapes of a data set, known without reading it, and whether a model can learn from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from partition.config import ExperimentConfig
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
    """None where the targets take the shape of the model's output, whatever it is."""
    task: Task
    """`any`: class indices for a cross-entropy, real numbers for a squared error."""


@dataclass(frozen=True, kw_only=True)
class BundledSource:
    """A data set that a Python package ships."""

    num_examples: int
    in_features: int
    num_classes: int


BUNDLED_SOURCES = {
    "digits": BundledSource(num_examples=1797, in_features=64, num_classes=10),
    "mnist5k": BundledSource(num_examples=5000, in_features=784, num_classes=10),
}


def describe(config: ExperimentConfig) -> DataInfo:
    """The counts and shapes of an experiment's data; nothing is read, nothing is allocated.

    Synthetic data is described from the model and the minibatch: without `data.num_examples` there are four
    minibatches to train on, and at least 1,000 examples.

    >>> describe(config).num_train  # doctest: +SKIP
    4000
    """
    bundled = BUNDLED_SOURCES.get(config.data.source)
    num_examples = _count_synthetic(config) if bundled is None else bundled.num_examples
    num_test = _count_test(num_examples, config.data.test_fraction)
    return DataInfo(
        source=config.data.source,
        num_examples=num_examples,
        num_train=num_examples - num_test,
        num_test=num_test,
        in_features=config.model.in_features if bundled is None else bundled.in_features,
        num_classes=None if bundled is None else bundled.num_classes,
        task="any" if bundled is None else "classification",
    )


def _count_synthetic(config: ExperimentConfig) -> int:
    if config.data.num_examples is not None:
        return config.data.num_examples
    num_train = max(SYNTHETIC_MINIBATCHES * config.training.minibatch_size, SYNTHETIC_MIN_TRAIN)
    return math.ceil(num_train / (1 - config.data.test_fraction))


def _count_test(num_examples: int, test_fraction: float) -> int:
    """The nearest whole number that leaves at least one example on each side."""
    return min(max(1, round(num_examples * test_fraction)), num_examples - 1)


def check(config: ExperimentConfig, *, file: str = "") -> list[Problem]:
    """Everything that keeps this model from learning from this data, each with the numbers and the key to change.

    `file` is the one that the experiment was read from; which line of it, only its reader knows.
    """
    info = describe(config)
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
