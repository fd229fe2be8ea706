"""The user's own examples as rows to train on and rows held out: opened, split, scaled, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.data.idx import Pair
from partition.data.outline import Items, Outline
from partition.data.own import OwnData, target_kind
from partition.data.rows import ClassRows, OneHotRows, Rows, ScaledRows, check_classes
from partition.data.scaling import Scaling, blocks, measure, scan
from partition.data.stores import Store, open_store

Order = NDArray[np.int64] | None
"""Indices of the rows that are meant, None for all."""


class Split:
    """Which rows of which arrays are trained on, and which are held out.

    `train` and `test` are orders, shuffled, of the one pair there is; both are None where each has a pair of its own.
    """

    def __init__(self, own: OwnData, train: Order, test: Order) -> None:
        self.own = own
        self.train = train
        self.test = test

    @property
    def held_out(self) -> Pair:
        return self.own.held_out or self.own.train

    def open(self, part: int) -> tuple[Store, Store]:
        """The features (part 0) or targets (part 1) for training and held out; one store where one array holds both."""
        train = open_store(self.own.train[part])
        return train, train if self.own.held_out is None else open_store(self.own.held_out[part])

    def is_train(self) -> NDArray[np.bool_] | None:
        """Of each row of the array for training, whether it is trained on; None where all are."""
        if self.train is None:
            return None
        chosen = np.zeros(self.own.train.features.num_rows, np.bool_)
        chosen[self.train] = True
        return chosen


def read_features(config: ExperimentConfig, split: Split, dtype: type[np.floating[Any]]) -> tuple[Rows, Rows]:
    """Features to train on and held out, scaled by those to train on.

    Raises DataError: a file is damaged, or a value is not finite.
    """
    train, test = split.open(0)
    scaling = measure(train, split.is_train(), config.data.scaling)
    if scaling is not None and test is not train:
        scan(test)
    return _scaled(split, train, test, scaling, dtype)


def read_targets(config: ExperimentConfig, split: Split, dtype: type[np.floating[Any]]) -> tuple[Rows, Rows]:
    """Targets to train on and held out, as the loss takes them; all are checked, but those that code makes.

    Raises DataError: a file is damaged, a value is not finite, or is no class that the model has an output for.
    """
    kind, num_classes = target_kind(config, split.own.train.targets), config.model.out_features
    train, test = split.open(1)
    stores = {id(store): store for store in (train, test) if not isinstance(store.outline.place, Items)}
    if kind == "values":
        are_fractions = config.model.has_fraction_targets
        if are_fractions and config.data.scales_targets:
            raise split.own.train.targets.refuse(
                "is standardised, and model.loss binary_cross_entropy takes targets from 0 to 1; remove "
                "data.standardise_targets"
            )
        scaling = measure(train, split.is_train(), "each") if config.data.scales_targets else None
        for store in stores.values():
            scan(store, are_fractions=are_fractions)
        return _scaled(split, train, test, scaling, dtype, are_fractions=are_fractions)
    if config.data.scales_targets:
        raise split.own.train.targets.refuse("holds classes, which have no mean; remove data.standardise_targets")
    for store in stores.values():
        _check_classes(store, num_classes)
    rows = ClassRows(train, split.train, num_classes), ClassRows(test, split.test, num_classes)
    if kind == "classes":
        return rows
    return OneHotRows(rows[0], num_classes, dtype), OneHotRows(rows[1], num_classes, dtype)


def _scaled(
    split: Split,
    train: Store,
    test: Store,
    scaling: Scaling | None,
    dtype: type[np.floating[Any]],
    *,
    are_fractions: bool = False,
) -> tuple[Rows, Rows]:
    return (
        ScaledRows(train, split.train, scaling, dtype, are_fractions=are_fractions),
        ScaledRows(test, split.test, scaling, dtype, are_fractions=are_fractions),
    )


def _check_classes(store: Store, num_classes: int) -> None:
    for rows, block in blocks(store):
        check_classes(block[:, 0], rows, num_classes, store.outline)


def target_shape(config: ExperimentConfig, targets: Outline) -> tuple[int, ...]:
    """The shape of one example's target, as the loss takes it."""
    return () if target_kind(config, targets) == "classes" else (config.model.out_features,)
