"""Random numbers of the data: a stream for each purpose, so that drawing more of one never changes another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream of random numbers is for; a number, once given, keeps its meaning."""

    SPLIT = 0
    EPOCH = 1
    EXAMPLES = 2
    TEACHER = 3


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """The generator of one stream; the bit generator is named because NumPy's default may change."""
    return np.random.Generator(np.random.PCG64([seed, stream, index]))
