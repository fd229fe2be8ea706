"""Brings the rows of a minibatch to the stages that read them, straight into their buffers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class MinibatchFeed:
    """The inputs and targets of one minibatch, cut into microbatches."""

    def __init__(self, x: NDArray[Any], y: NDArray[Any], examples: NDArray[np.int64], sizes: Sequence[int]) -> None:
        self._arrays = {"x": x, "targets": y}
        self._examples = examples
        self._ends = list(accumulate(sizes, initial=0))

    def __call__(self, variable: str, microbatch: int, into: Tensor) -> None:
        """Write the rows of a microbatch into a tensor of its shape; `variable` is "x" or "targets"."""
        array = self._arrays[variable]
        rows = self._examples[self._ends[microbatch] : self._ends[microbatch + 1]]
        if into.device.type == "cpu":
            # mode="clip" writes into `out` directly; the indices are ours and in range.
            np.take(array, rows, axis=0, out=into.numpy(), mode="clip")
        else:
            into.copy_(torch.from_numpy(array[rows]))
