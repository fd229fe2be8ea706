"""The least value of many windows: held against looking through each of them, over few values and over many."""

from __future__ import annotations

import math

import numpy as np
import pytest

from partition.plan.window_minima import FEW_VALUES, window_minima


@pytest.mark.parametrize("count", [1, 2, 7, FEW_VALUES, FEW_VALUES + 1, 3 * FEW_VALUES])
@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_the_windows_looked_through(count: int, seed: int) -> None:
    choose = np.random.default_rng(seed)
    values = choose.random(count)
    starts = np.sort(choose.integers(0, count + 1, 40))
    stops = np.sort(choose.integers(0, count + 1, 40))
    expected = [min(values[start:stop], default=math.inf) for start, stop in zip(starts, stops, strict=True)]
    assert window_minima(values, starts, stops).tolist() == expected
