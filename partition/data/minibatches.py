"""Which examples make up each minibatch of an epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partition.data.randomness import Stream, generator


def minibatches(num_train: int, minibatch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Index arrays that together visit every training example once, in an order of this seed and epoch alone.

    Args:
        num_train: training examples.
        minibatch_size: examples in each minibatch; the last is smaller where they do not divide evenly.
        seed: `training.seed`.
        epoch: from 0.

    >>> [len(indices) for indices in minibatches(10, 4, seed=0, epoch=0)]
    [4, 4, 2]
    """
    order = generator(seed, Stream.EPOCH, epoch).permutation(num_train)
    return [order[start : start + minibatch_size] for start in range(0, num_train, minibatch_size)]
