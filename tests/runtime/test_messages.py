"""Which tensors sums between hosts are measured with."""

from __future__ import annotations

import pytest

from partition.costs.profile import Curve
from partition.runtime.messages import LONGEST_S, MOST_SUM_BYTES, MOST_SUMS, affordable


def along(latency_s: float, s_per_byte: float) -> Curve:
    """Seconds of tensors along a line."""
    sizes = (4, 2**20)
    return Curve(sizes=sizes, seconds=tuple(latency_s + size * s_per_byte for size in sizes))


def test_gradients_that_take_little_are_taken_as_they_are() -> None:
    assert affordable(along(1e-4, 1e-9), [4096, 64, 2048, 32]) == [4096, 64, 2048, 32]
    assert affordable(along(1e-4, 1e-9), []) == []


def test_of_many_the_first_are_taken_weights_and_biases() -> None:
    found = affordable(along(1e-6, 1e-12), [4096, 64] * 100)
    assert found == [4096, 64] * (MOST_SUMS // 2)


@pytest.mark.parametrize("curve", [along(1e-5, 1e-6), along(0.05, 0.0), along(10.0, 1e-6), along(0.0, 0.0)])
def test_what_is_taken_is_measured_in_the_time_that_there_is(curve: Curve) -> None:
    found = affordable(curve, [2**23, 4096] * 40)
    assert found
    assert sum(found) <= MOST_SUM_BYTES + 4 * len(found)
    assert sum(map(curve.at, found)) <= max(1.01 * LONGEST_S, len(found) * curve.at(4) + LONGEST_S)


def test_tensors_of_no_bytes_are_still_tensors() -> None:
    assert affordable(along(0.0, 0.0), [0, 0]) == [4, 4]
