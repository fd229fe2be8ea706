"""Brings the rows of a minibatch to the stages that read them, straight into their buffers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.data.rows import Elsewhere, Examples, read_rows
from partition.graph import LossRecord
from partition.ops.losses import summed_weight


def example_weight(loss: LossRecord, y: Examples, examples: NDArray[np.int64]) -> float:
    """What the loss of one example is multiplied by: one over what the examples of the minibatch count together.

    Where the targets are in another process, so is the loss, and this number is not used.
    """
    if loss.class_weights is None or isinstance(y, Elsewhere):
        return 1.0 / len(examples)
    targets = np.empty((len(examples), *y.shape[1:]), y.dtype)
    read_rows(y, examples, targets)
    return 1.0 / summed_weight(loss, targets)


class MinibatchFeed:
    """The inputs and targets of one minibatch, cut into microbatches."""

    def __init__(self, x: Examples, y: Examples, examples: NDArray[np.int64], sizes: Sequence[int]) -> None:
        self._examples_of = {"x": x, "targets": y}
        self._examples = examples
        self._ends = list(accumulate(sizes, initial=0))

    def __call__(self, variable: str, microbatch: int, into: Tensor) -> None:
        """Write the rows of a microbatch into a tensor of its shape; `variable` is "x" or "targets"."""
        examples = self._examples_of[variable]
        rows = self._examples[self._ends[microbatch] : self._ends[microbatch + 1]]
        if into.device.type == "cpu":
            read_rows(examples, rows, into.numpy())
        else:
            # From pinned memory, which torch keeps until the copy has run, a GPU takes rows while the host goes on.
            dtype = torch.from_numpy(np.empty(0, examples.dtype)).dtype
            on_host = torch.empty((len(rows), *examples.shape[1:]), dtype=dtype, pin_memory=True)
            if isinstance(examples, np.ndarray) and examples.flags.writeable:
                torch.index_select(torch.from_numpy(examples), 0, torch.from_numpy(rows), out=on_host)  # on all cores
            else:
                read_rows(examples, rows, on_host.numpy())
            into.copy_(on_host, non_blocking=True)
