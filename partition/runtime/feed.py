"""Brings the rows of a minibatch to the stages that read them, straight into their buffers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
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
        self._gathered: dict[str, Tensor] = {}
        """Rows of the first microbatch that a GPU is to take, where they were gathered ahead of time."""

    def __call__(self, variable: str, microbatch: int, into: Tensor) -> None:
        """Write the rows of a microbatch into a tensor of its shape; `variable` is "x" or "targets"."""
        if into.device.type == "cpu":
            read_rows(self._examples_of[variable], self._rows(microbatch), into.numpy())
            return
        # From pinned memory, which torch keeps until the copy has run, a GPU takes rows while the host goes on.
        into.copy_(self.on_host(variable, microbatch), non_blocking=True)

    def on_host(self, variable: str, microbatch: int) -> Tensor:
        """The rows of a microbatch, pinned where there is a GPU; those gathered before are handed out once."""
        gathered = self._gathered.pop(variable, None) if microbatch == 0 else None
        return self._pinned(variable, microbatch) if gathered is None else gathered

    def gather(self, variables: Iterable[str]) -> None:
        """Have the rows of the first microbatch ready for a GPU."""
        for variable in variables:
            self._gathered[variable] = self._pinned(variable, 0)

    def _rows(self, microbatch: int) -> NDArray[np.int64]:
        return self._examples[self._ends[microbatch] : self._ends[microbatch + 1]]

    def _pinned(self, variable: str, microbatch: int) -> Tensor:
        """The rows of a microbatch in pinned memory, gathered on all cores where they are in memory."""
        examples, rows = self._examples_of[variable], self._rows(microbatch)
        dtype = torch.from_numpy(np.empty(0, examples.dtype)).dtype
        on_host = torch.empty((len(rows), *examples.shape[1:]), dtype=dtype, pin_memory=torch.cuda.is_available())
        # torch warns of arrays that cannot be written to, as those that are mapped from files are.
        if isinstance(examples, np.ndarray) and examples.flags.writeable:
            # `index_select` gathers rows of several numbers on all cores, `take` single numbers.
            gather = torch.take if examples.ndim == 1 else partial(torch.index_select, dim=0)
            gather(torch.from_numpy(examples), index=torch.from_numpy(rows), out=on_host)
        else:
            read_rows(examples, rows, on_host.numpy())
        return on_host


def fed_variables(stages: Collection[int], num_stages: int) -> list[str]:
    """What of a minibatch these stages read."""
    return ["x"] * (0 in stages) + ["targets"] * (num_stages - 1 in stages)
