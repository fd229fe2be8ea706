"""The examples that an experiment trains and is evaluated on.

Shapes: N examples, I features in, O outputs of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.config.data import Standardise
from partition.data.description import BUNDLED_SOURCES, DataInfo, describe, describe_own
from partition.data.own import OWN_SOURCES, OwnData, outline_own
from partition.data.own_rows import Split, read_features, read_targets, target_shape
from partition.data.randomness import Stream, generator
from partition.data.rows import Elsewhere, Examples
from partition.data.sources import SHIPPED, read
from partition.data.synthetic import draw
from partition.errors import PartitionError
from partition.units import format_bytes

Float = type[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples to train on and examples held out; no example is in both.

    Features (N, I) are of the compute dtype. Targets are class indices (N,) of int64 for a cross-entropy, and of the
    compute dtype and the shape (N, O) of the output for a squared error. All are read by `rows.read_rows`; what a
    process has no use for is `Elsewhere`: its length is known and its rows are not there.
    """

    train_x: Examples
    train_y: Examples
    test_x: Examples
    test_y: Examples

    @property
    def num_train(self) -> int:
        return len(self.train_x)

    @property
    def num_test(self) -> int:
        return len(self.test_x)


def load(config: ExperimentConfig, *, has_inputs: bool = True, has_targets: bool = True) -> Dataset:
    """Open, read or make the data of an experiment, split by `training.seed` and nothing else.

    Only what is wanted is read: the first stage needs the inputs, the last the targets. What is read is the same,
    whatever is not.

    Bundled images are scaled to [0, 1] and standardised as `data.standardise` says. Classes become one-hot rows for a
    squared error. Synthetic examples are `synthetic.draw`'s: a squared error learns the teacher's outputs, a
    cross-entropy which of them is the largest. The user's own files stay where they are, if they allow it.

    Raises:
        PartitionError: a package of the extra `data` is missing, or the examples do not fit in memory; DataError: the
        user's own cannot be learned from.
    """
    own = outline_own(config) if config.data.source in OWN_SOURCES else None
    info = describe(config) if own is None else describe_own(config, own)
    try:
        if own is not None:
            return _load_own(config, own, info, has_inputs=has_inputs, has_targets=has_targets)
        if info.source in SHIPPED:
            return _keep(_load_bundled(config, info), has_inputs=has_inputs, has_targets=has_targets)
        return _make_synthetic(config, info, has_inputs=has_inputs, has_targets=has_targets)
    except MemoryError:
        num_bytes = info.num_examples * info.in_features * np.dtype(compute_dtype(config)).itemsize
        remedy = "set data.num_examples or training.minibatch_size lower"
        raise PartitionError(
            f"data.source {info.source}: {info.num_examples} examples of {info.in_features} features take "
            f"{format_bytes(num_bytes)}, which this machine does not have; "
            + (remedy if own is None else "save them as .npy, which is read in place, or take fewer")
        ) from None


def compute_dtype(config: ExperimentConfig) -> Float:
    """The NumPy type of features; formats that NumPy does not have are converted from float32 on their device."""
    return np.float64 if config.precision.compute == "float64" else np.float32


def _keep(dataset: Dataset, *, has_inputs: bool, has_targets: bool) -> Dataset:
    """The data set without what is not wanted."""

    def keep(examples: Examples, is_wanted: bool) -> Examples:
        return examples if is_wanted else Elsewhere(examples.shape, examples.dtype)

    return Dataset(
        train_x=keep(dataset.train_x, has_inputs),
        train_y=keep(dataset.train_y, has_targets),
        test_x=keep(dataset.test_x, has_inputs),
        test_y=keep(dataset.test_y, has_targets),
    )


def _shuffle(config: ExperimentConfig, num_examples: int) -> NDArray[np.int64]:
    """Shuffled, because sources may be sorted by class; those held out come first."""
    return generator(config.training.seed, Stream.SPLIT).permutation(num_examples)


def _load_own(
    config: ExperimentConfig, own: OwnData, info: DataInfo, *, has_inputs: bool, has_targets: bool
) -> Dataset:
    order = _shuffle(config, info.num_examples) if own.held_out is None else None
    orders = (None, None) if order is None else (order[info.num_test :], order[: info.num_test])
    split, dtype = Split(own, *orders), compute_dtype(config)
    counts, of_target = (info.num_train, info.num_test), target_shape(config, own.train.targets)
    x: tuple[Examples, ...] = tuple(Elsewhere((count, info.in_features), np.dtype(dtype)) for count in counts)
    y_dtype = np.dtype(dtype if of_target else np.int64)
    y: tuple[Examples, ...] = tuple(Elsewhere((count, *of_target), y_dtype) for count in counts)
    if has_inputs:
        x = read_features(config, split, dtype)
    if has_targets:
        y = read_targets(config, split, dtype)
    return Dataset(train_x=x[0], train_y=y[0], test_x=x[1], test_y=y[1])


def _load_bundled(config: ExperimentConfig, info: DataInfo) -> Dataset:
    features, raw_targets = read(info.source)
    order = _shuffle(config, info.num_examples)
    test, train = order[: info.num_test], order[info.num_test :]
    scaled = features / np.float64(SHIPPED[info.source].max_value)
    scaled = _standardise(scaled, train, config.data.scaling).astype(compute_dtype(config))
    if BUNDLED_SOURCES[info.source].num_classes is None:
        way: Standardise = "each" if config.data.scales_targets else "none"
        targets: NDArray[Any] = _standardise(raw_targets[:, None], train, way).astype(compute_dtype(config))
    else:
        targets = _shape_targets(raw_targets, config)
    return Dataset(train_x=scaled[train], train_y=targets[train], test_x=scaled[test], test_y=targets[test])


def _standardise(values_NI: NDArray[np.float64], train: NDArray[np.int64], way: Standardise) -> NDArray[np.float64]:
    if way == "none":
        return values_NI
    axis = None if way == "together" else 0
    deviation = values_NI[train].std(axis=axis)
    # A pixel that is always white is constant, and becomes zero.
    scaled: NDArray[np.float64] = values_NI - values_NI[train].mean(axis=axis)
    return scaled / np.where(deviation == 0, 1, deviation)


def _shape_targets(classes: NDArray[np.int64], config: ExperimentConfig) -> NDArray[Any]:
    if config.model.has_class_targets:
        return classes
    return np.eye(config.model.out_features, dtype=compute_dtype(config))[classes]


def _make_synthetic(config: ExperimentConfig, info: DataInfo, *, has_inputs: bool, has_targets: bool) -> Dataset:
    x, outputs = draw(
        num_examples=info.num_examples,
        in_features=info.in_features,
        out_features=config.model.out_features,
        seed=config.training.seed,
        dtype=compute_dtype(config),
        has_inputs=has_inputs,
        has_targets=has_targets,
    )
    y: NDArray[Any] = outputs.argmax(axis=1) if config.model.has_class_targets else outputs
    if config.model.has_fraction_targets:
        y = (y > 0).astype(y.dtype)  # yes or no for every output
    (train_x, test_x), (train_y, test_y) = _cut(x, info, has_inputs), _cut(y, info, has_targets)
    return Dataset(train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)


def _cut(values: NDArray[Any], info: DataInfo, is_there: bool) -> tuple[Examples, Examples]:
    """Rows to train on and held out; examples drawn independently need no shuffle, and may be too large to copy."""
    if is_there:
        return values[info.num_test :], values[: info.num_test]
    counts = (info.num_train, info.num_test)
    train, test = (Elsewhere((count, *values.shape[1:]), values.dtype) for count in counts)
    return train, test
