"""Standardising: values less their mean, by their standard deviation, in one pass and bounded memory.

Shapes: N examples, I values in each, B examples in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.config.data import Standardise
from partition.data.outline import Outline
from partition.data.refusal import DataError
from partition.data.stores import Store

BLOCK_BYTES = 2**22
"""Of a block of values in float64. Fixed, because sums depend in their last bits on where blocks begin."""

_CONSTANT = 64 * np.finfo(np.float64).eps
"""A deviation of less than this part of the mean is rounding."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """(x - mean) / deviation; arrays of one entry, or of one for each value of an example."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def apply(self, raw_BI: NDArray[Any]) -> NDArray[np.float64]:
        """A new array of scaled values."""
        scaled: NDArray[np.float64] = np.subtract(raw_BI, self.mean, dtype=np.float64)
        scaled /= self.deviation
        return scaled


def measure(store: Store, is_chosen_N: NDArray[np.bool_] | None, way: Standardise) -> Scaling | None:
    """The scaling of an array by the chosen examples (None: all); None for the way `none`.

    Mean and sum of squares are merged block by block (Chan, Golub and LeVeque 1983, eq. 2.1): for blocks a and b

        mean = mean_a + (mean_b - mean_a) n_b / n,    s = s_a + s_b + (mean_b - mean_a)^2 n_a n_b / n

    Examples not chosen are read too, to refuse what is not finite before the first step.

    Raises DataError with the example that is not finite.
    """
    if way == "none":
        return None
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for rows, block in blocks(store):
        check_finite(block, rows, store.outline)
        chosen = block if is_chosen_N is None else block[is_chosen_N[rows]]
        if not len(chosen):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            added, mean_b, squares_b = _moments(chosen, way)
            shift = mean_b - mean
            squares = squares + squares_b + shift**2 * (count * added / (count + added))
            mean = mean + shift * (added / (count + added))
        count += added
    return _finish(count, mean, squares, store.outline)


def scan(store: Store, *, are_fractions: bool = False) -> None:
    """Refuse an array that holds NaN or an infinity, or what is not from 0 to 1 where that is wanted.

    Raises DataError.
    """
    for rows, block in () if store.outline.is_whole and not are_fractions else blocks(store):
        check_finite(block, rows, store.outline)
        if are_fractions:
            check_fractions(block, rows, store.outline)


def check_finite(values: NDArray[Any], rows: NDArray[np.int64], outline: Outline) -> None:
    """Refuse an example that holds NaN or an infinity, by its place in the array.

    Raises DataError.
    """
    if outline.is_whole:
        return
    finite = np.isfinite(values)
    if not finite.all():
        row, column = (int(at) for at in np.argwhere(~finite)[0])
        raise not_finite(outline, int(rows[row]), column)


def check_fractions(values: NDArray[Any], rows: NDArray[np.int64], outline: Outline) -> None:
    """Refuse an example that holds what is not from 0 to 1, by its place in the array.

    Raises DataError.
    """
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        row, column = (int(at) for at in np.argwhere(wrong)[0])
        raise outline.refuse(
            f"has {float(values[row, column]):.6g} in example {int(rows[row])}, value {column} (counted from 0), and "
            "model.loss binary_cross_entropy takes targets from 0 to 1; rescale them, or set model.loss: mse"
        )


def not_finite(outline: Outline, row: int, column: int) -> DataError:
    """The refusal of one value."""
    return outline.refuse(
        f"has NaN, an infinity or a number too large for precision.compute in example {row}, value {column} (counted "
        "from 0); remove or replace it"
    )


def _moments(block: NDArray[np.float64], way: Standardise) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number, mean and sum of squared differences from it, of all values or of each."""
    values = block.reshape(-1, 1) if way == "together" else block
    mean = values.mean(axis=0)
    values -= mean
    return len(values), mean, np.einsum("bi,bi->i", values, values)


def blocks(store: Store) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Indices and values of all rows, in float64, some at a time."""
    num_rows = store.outline.num_rows
    size = max(1, BLOCK_BYTES // (8 * store.outline.width))
    for start in range(0, num_rows, size):
        rows = np.arange(start, min(start + size, num_rows))
        with np.errstate(invalid="ignore"):  # NaN is refused in words, by the caller
            values = store.take(rows).astype(np.float64)
        yield rows, values


def _finish(count: int, mean: NDArray[np.float64], squares: NDArray[np.float64], outline: Outline) -> Scaling:
    deviation = np.sqrt(squares / count)
    if not np.isfinite(mean).all() or not np.isfinite(deviation).all():
        raise outline.refuse(
            "has values too large for a standard deviation; rescale them, or set data.standardise: none"
        )
    # What is constant becomes zero, not rounding errors over rounding errors.
    deviation[deviation <= _CONSTANT * np.abs(mean)] = 1.0
    return Scaling(mean=mean, deviation=deviation)
