"""Rows of a data set, written where a stage wants them: held in memory, in a file, or by another process.

Shapes: N examples, I values in each, B examples asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partition.data.outline import Outline
from partition.data.refusal import DataError
from partition.data.scaling import Scaling, check_fractions, not_finite
from partition.data.stores import Store

SCRATCH_BYTES = 2**20


class Rows(Protocol):
    """Examples that are not an array in memory, read some at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,) or (N, I)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Write the rows of these indices, in their order, into an array of their shape and type.

        The same bits whoever reads, and however many rows at once. Takes about 1 MiB of its own, or a few rows.

        Raises DataError where the file is not what it was, or holds what cannot be learned from.
        """


Examples = NDArray[Any] | Rows
"""Rows in any form: an array in memory is the plainest."""


def read_rows(examples: Examples, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Write rows into an array of their shape and type, whatever holds them; indices are in range."""
    if isinstance(examples, np.ndarray):
        # mode="clip" writes into `out` directly.
        np.take(examples, indices, axis=0, out=out, mode="clip")
    else:
        examples.read(indices, out)


class _Chosen:
    """Some rows of a store, in an order of their own (None: all, as they stand)."""

    def __init__(self, store: Store, order: NDArray[np.int64] | None) -> None:
        self.outline = store.outline
        self._store = store
        self._order = order
        self._portion = max(1, SCRATCH_BYTES // (8 * store.outline.width))

    def __len__(self) -> int:
        return self.outline.num_rows if self._order is None else len(self._order)

    def portions(self, indices: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]]:
        """Positions within `indices`, rows of the store and their values, in the order of the file."""
        rows = indices if self._order is None else self._order[indices]
        by_row = np.argsort(rows, kind="stable")
        for start in range(0, len(rows), self._portion):
            places = by_row[start : start + self._portion]
            yield places, rows[places], self._store.take(rows[places])


class ScaledRows:
    """Features, or targets that are real numbers, scaled as they are read."""

    def __init__(
        self,
        store: Store,
        order: NDArray[np.int64] | None,
        scaling: Scaling | None,
        dtype: type[np.floating[Any]],
        *,
        are_fractions: bool = False,
    ) -> None:
        self._chosen = _Chosen(store, order)
        self._scaling = scaling
        self._are_fractions = are_fractions
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, I)."""
        return (len(self), self._chosen.outline.width)

    def read(self, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Write scaled rows; refuses NaN, what overflows, and what is not from 0 to 1 where that is wanted."""
        for places, rows, raw in self._chosen.portions(indices):
            with np.errstate(over="ignore", invalid="ignore"):
                values = (raw if self._scaling is None else self._scaling.apply(raw)).astype(self.dtype)
            finite = np.isfinite(values)
            if not finite.all():
                row, column = (int(at) for at in np.argwhere(~finite)[0])
                raise not_finite(self._chosen.outline, int(rows[row]), column)
            if self._are_fractions:
                check_fractions(values, rows, self._chosen.outline)
            out[places] = values


class ClassRows:
    """Class indices (N,), checked as they are read."""

    dtype: np.dtype[Any] = np.dtype(np.int64)

    def __init__(self, store: Store, order: NDArray[np.int64] | None, num_classes: int) -> None:
        self._chosen = _Chosen(store, order)
        self._num_classes = num_classes

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,)."""
        return (len(self),)

    def read(self, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Write class indices; refuses what is none, or is beyond the model's outputs."""
        for places, rows, raw in self._chosen.portions(indices):
            out[places] = check_classes(raw[:, 0], rows, self._num_classes, self._chosen.outline)


class OneHotRows:
    """Classes as rows of zeros with a one, which a squared error learns."""

    def __init__(self, classes: ClassRows, width: int, dtype: type[np.floating[Any]]) -> None:
        self._classes = classes
        self._width = width
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, O)."""
        return (len(self), self._width)

    def read(self, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Write the rows of these classes."""
        classes = np.empty(len(indices), np.int64)
        self._classes.read(indices, classes)
        out[...] = 0
        out[np.arange(len(indices)), classes] = 1


class Elsewhere:
    """Rows that another process reads: how many there are, and no values."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Nothing here can."""
        del indices, out
        raise AssertionError("rows were asked for that this process did not load")


def check_classes(
    values: NDArray[Any], rows: NDArray[np.int64], num_classes: int, outline: Outline
) -> NDArray[np.int64]:
    """Values as class indices.

    Raises DataError with the first example whose value is not a whole number from 0 to num_classes - 1.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 0) & (values < num_classes) & (values == np.trunc(values)))
    if not wrong.any():
        return values.astype(np.int64)
    at = int(np.argmax(wrong))
    raise _wrong_class(float(values[at]), int(rows[at]), num_classes, outline)


def _wrong_class(value: float, row: int, num_classes: int, outline: Outline) -> DataError:
    where = f"example {row} of {outline.name} has the class {value:.15g}"
    if value.is_integer() and value >= num_classes:
        message = f"is {num_classes}, but {where} (classes are counted from 0); set model.out_features to "
        return DataError("model.out_features", f"{message}{value + 1:.15g} or more, or correct the class")
    if value.is_integer():
        return DataError(outline.key, f"{where}; classes are counted from 0, correct it")
    return DataError(outline.key, f"{where}, which is no whole number; give class indices, or set model.loss: mse")
