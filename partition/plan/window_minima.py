"""The least value within each of many windows of one array."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from partition.plan.layer_sums import Floats

Integers = NDArray[np.intp]
FEW_VALUES = 400
"""In which looking through every window takes less than a table."""


def window_minima(values: Floats, starts: Integers, stops: Integers) -> Floats:
    """The least of values[start:stop] for many windows in increasing order; infinite where one is empty.

    Over few values every window is looked through. Else row k of a table has the minima over 2**k neighbours, and a
    window is covered by two of them.
    """
    return _found_in_few(values, starts, stops) if len(values) <= FEW_VALUES else _found_in_table(values, starts, stops)


def _found_in_few(values: Floats, starts: Integers, stops: Integers) -> Floats:
    count = len(values)
    padded = np.empty(count + 1)
    padded[:count], padded[count] = values, math.inf
    edges = np.empty(2 * len(starts), dtype=np.intp)
    # A window that begins behind the values is empty, as is one that would have to.
    edges[::2] = starts if starts[-1] <= count else np.minimum(starts, count)
    edges[1::2] = stops
    found: Floats = np.minimum.reduceat(padded, edges)[::2]
    found[starts >= stops] = math.inf
    return found


def _found_in_table(values: Floats, starts: Integers, stops: Integers) -> Floats:
    widths = stops - starts
    table = np.empty((max(len(values).bit_length(), 1), len(values)))
    table[0] = values
    for level in range(1, len(table)):
        span = 1 << (level - 1)
        np.minimum(table[level - 1, :-span], table[level - 1, span:], out=table[level, :-span])
    is_empty = widths <= 0 if int(widths.min()) <= 0 else None
    if is_empty is not None:
        starts, stops, widths = (np.where(is_empty, other, of) for of, other in ((starts, 0), (stops, 1), (widths, 1)))
    levels = _levels(len(values).bit_length())[widths]
    found: Floats = np.minimum(table[levels, starts], table[levels, stops - (1 << levels)])
    if is_empty is not None:
        found[is_empty] = math.inf
    return found


@cache
def _levels(bits: int) -> Integers:
    """Of every width below 2**bits the largest k with 2**k no wider."""
    return np.array([max(width.bit_length() - 1, 0) for width in range(1 << bits)], dtype=np.intp)
