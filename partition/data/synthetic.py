"""Examples made from the seed, as many as are asked for, that a model can learn.

Shapes: N examples, I features in, O outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.data.randomness import Stream, generator

BLOCK_SIZE = 4096


def draw(
    *,
    num_examples: int,
    in_features: int,
    out_features: int,
    seed: int,
    dtype: type[np.floating[Any]],
    has_inputs: bool = True,
    has_targets: bool = True,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Standard normal features x_NI, and what a fixed linear teacher makes of them.

    y_NO = x_NI @ teacher_OI.T, with teacher entries of variance 1/I, so that outputs are of order one. Both precisions
    get the same numbers: they are drawn in float64 and rounded. Of what is not wanted there are no examples.

    Raises:
        MemoryError: the examples are more than this machine holds.
    """
    teacher_OI = generator(seed, Stream.TEACHER).standard_normal((out_features, in_features)) / np.sqrt(in_features)
    numbers = generator(seed, Stream.EXAMPLES)
    x_NI = np.empty((num_examples * has_inputs, in_features), dtype)
    y_NO = np.empty((num_examples * has_targets, out_features), dtype)
    # In blocks, so that float64 never exists for all examples at once.
    for start in range(0, num_examples, BLOCK_SIZE):
        block = slice(start, min(start + BLOCK_SIZE, num_examples))
        drawn_BI = numbers.standard_normal((block.stop - block.start, in_features))
        if has_inputs:
            x_NI[block] = drawn_BI
        if has_targets:
            y_NO[block] = drawn_BI @ teacher_OI.T
    return x_NI, y_NO
