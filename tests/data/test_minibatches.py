"""Every epoch visits every example once, in an order of its own, the same every time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from partition.data.minibatches import minibatches


@given(num_train=st.integers(1, 200), minibatch_size=st.integers(1, 200), epoch=st.integers(0, 3))
def test_every_example_once_and_only_the_last_is_smaller(num_train: int, minibatch_size: int, epoch: int) -> None:
    batches = minibatches(num_train, minibatch_size, seed=0, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(num_train))
    assert all(len(batch) == minibatch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= minibatch_size


def order(*, seed: int, epoch: int, minibatch_size: int = 30) -> list[int]:
    return np.concatenate(minibatches(100, minibatch_size, seed=seed, epoch=epoch)).tolist()


def test_seed_and_epoch_decide_the_order_and_the_minibatch_does_not() -> None:
    first = order(seed=5, epoch=1)
    assert order(seed=5, epoch=1, minibatch_size=7) == first
    assert order(seed=5, epoch=2) != first
    assert order(seed=6, epoch=1) != first
    assert first != sorted(first)


def test_the_order_keeps_its_bits() -> None:
    assert order(seed=0, epoch=0)[:8] == [65, 45, 69, 50, 18, 86, 80, 9]
