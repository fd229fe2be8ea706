"""The arrays that an experiment trains and is evaluated on.

Shapes: N examples, I features in, O outputs of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.data.description import DataInfo, describe
from partition.data.randomness import Stream, generator
from partition.data.sources import SHIPPED, read
from partition.data.synthetic import draw
from partition.errors import PartitionError
from partition.units import format_bytes

Features = NDArray[np.floating[Any]]
Targets = NDArray[np.int64] | NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples to train on and examples held out; no example is in both.

    Features (N, I) are of the compute dtype. Targets are class indices (N,) of int64 for a cross-entropy, and of the
    compute dtype and the shape (N, O) of the output for a squared error.
    """

    train_x: Features
    train_y: Targets
    test_x: Features
    test_y: Targets

    @property
    def num_train(self) -> int:
        return len(self.train_x)

    @property
    def num_test(self) -> int:
        return len(self.test_x)


def load(config: ExperimentConfig) -> Dataset:
    """Read or make the data of an experiment, split by `training.seed` and nothing else.

    Images are scaled to [0, 1] and standardised by the mean and the standard deviation, one number each, of the
    training examples. Their classes become one-hot rows for a squared error. Synthetic examples are `synthetic.draw`'s:
    a squared error learns the teacher's outputs, a cross-entropy which of them is the largest.

    Raises:
        PartitionError: a package of the extra `data` is missing, or the examples do not fit in memory.
    """
    info = describe(config)
    try:
        return _load_bundled(config, info) if info.source in SHIPPED else _make_synthetic(config, info)
    except MemoryError:
        num_bytes = info.num_examples * info.in_features * np.dtype(compute_dtype(config)).itemsize
        raise PartitionError(
            f"data.source {info.source}: {info.num_examples} examples of {info.in_features} features take "
            f"{format_bytes(num_bytes)}, which this machine does not have; "
            "set data.num_examples or training.minibatch_size lower"
        ) from None


def compute_dtype(config: ExperimentConfig) -> type[np.floating[Any]]:
    """The NumPy type of features; formats that NumPy does not have are converted from float32 on their device."""
    return np.float64 if config.precision.compute == "float64" else np.float32


def _load_bundled(config: ExperimentConfig, info: DataInfo) -> Dataset:
    features, classes = read(info.source)
    # Shuffled, because the sources may be sorted by class.
    order = generator(config.training.seed, Stream.SPLIT).permutation(info.num_examples)
    test, train = order[: info.num_test], order[info.num_test :]
    scaled = features / np.float64(SHIPPED[info.source].max_value)
    scaled = ((scaled - scaled[train].mean()) / scaled[train].std()).astype(compute_dtype(config))
    targets = _shape_targets(classes, config)
    return Dataset(train_x=scaled[train], train_y=targets[train], test_x=scaled[test], test_y=targets[test])


def _shape_targets(classes: NDArray[np.int64], config: ExperimentConfig) -> Targets:
    if config.model.loss == "cross_entropy":
        return classes
    return np.eye(config.model.out_features, dtype=compute_dtype(config))[classes]


def _make_synthetic(config: ExperimentConfig, info: DataInfo) -> Dataset:
    x, outputs = draw(
        num_examples=info.num_examples,
        in_features=info.in_features,
        out_features=config.model.out_features,
        seed=config.training.seed,
        dtype=compute_dtype(config),
    )
    y: Targets = outputs.argmax(axis=1) if config.model.loss == "cross_entropy" else outputs
    # Examples drawn independently need no shuffle, and these may be too large to copy.
    held_out = info.num_test
    return Dataset(train_x=x[held_out:], train_y=y[held_out:], test_x=x[:held_out], test_y=y[:held_out])
