"""An array as its file describes it: shape, type and place, known without reading a value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from partition.config.data import LARGEST_EXAMPLE_COUNT
from partition.data.refusal import DataError, show

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")

LARGEST_WIDTH = 2**40
MOST_AXES = 32


@dataclass(frozen=True, kw_only=True)
class Raw:
    """The values as bytes of a file, from an offset to its end or on: a row is read by its position."""

    path: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The values compressed, in a gzip file or (with a member's name) in a zip file: only the whole can be read."""

    path: str
    member: str | None
    offset: int
    """Of the values, in the file unpacked."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Columns of a text file."""

    path: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    """Of these columns, for messages."""
    num_columns: int
    has_header: bool
    delimiter: str


@dataclass(frozen=True, kw_only=True)
class Items:
    """One part (0: features, 1: targets) of the items of a Dataset."""

    dataset: Any
    part: int


@dataclass(frozen=True, kw_only=True)
class Outline:
    """An array of the user's; an example is what one index of the first axis holds."""

    key: str
    """Of the experiment, for messages."""
    name: str
    """Of the file and what in it, for messages."""
    shape: tuple[int, ...]
    dtype: str
    """As NumPy writes it: `<f4`, `|u1`."""
    is_columns_first: bool = False
    """Whether the values are in Fortran's order."""
    place: Raw | Packed | Cells | Items

    @property
    def num_rows(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        """Values of one example."""
        return math.prod(self.shape[1:])

    @property
    def itemsize(self) -> int:
        return int(self.dtype[-1])

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers by their type."""
        return self.dtype[-2] in "iub"

    def refuse(self, message: str) -> DataError:
        """The error that says something is wrong with this array."""
        return DataError(self.key, f"{self.name} {message}")


def check_outline(outline: Outline) -> Outline:
    """The outline, if it can be data at all.

    Raises DataError where it has no examples, no values in them, or far too many.
    """
    if not outline.shape:
        raise outline.refuse("holds a single value; data has an example for every index of the first axis")
    if len(outline.shape) > MOST_AXES:
        raise outline.refuse(f"has {len(outline.shape)} axes; the most is {MOST_AXES}")
    if min(outline.shape) < 1:
        raise outline.refuse(f"has the shape {show(outline.shape)}; every size must be at least 1")
    if outline.num_rows > LARGEST_EXAMPLE_COUNT:
        raise outline.refuse(f"has {show(outline.num_rows)} examples; the most is {LARGEST_EXAMPLE_COUNT}")
    if outline.width > LARGEST_WIDTH:
        raise outline.refuse(f"has {show(outline.width)} values an example; the most is {LARGEST_WIDTH}")
    return outline


def check_dtype(dtype: object, key: str, name: str) -> str:
    """The type of an array, if its values are plain numbers.

    Raises DataError for objects (which are never unpickled), text, records, dates and complex numbers.
    """
    if isinstance(dtype, str) and _DTYPE.fullmatch(dtype):
        return dtype
    kind = "Python objects, which are never loaded" if "O" in str(dtype) else f"values of type {show(dtype)}"
    raise DataError(key, f"{name} holds {kind}; save it as integers or floats of at most 64 bits")
