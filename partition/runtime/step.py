"""One replica's part of a minibatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from partition.runtime.stage import Feed, Frame
from partition.schedule import Action


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an executor runs its row on: how it is cut, where its rows come from, what its actions should take."""

    sizes: tuple[int, ...]
    """Examples of each microbatch."""
    weight: float
    """1/N, the weight of every example."""
    feed: Feed
    seconds: Callable[[Action], float]
    step: int = 0
    """Which optimizer step."""
    first_example: int = 0
    """The place in the minibatch of this replica's first example."""
    sink: Callable[[int, Tensor], None] | None = None
    """Takes the logits of each microbatch where the row is for prediction; None for training."""
    examine: Callable[[int, int, Tensor], None] | None = None
    """Sees, of which rank, which layer's output in prediction."""
    meanwhile: Callable[[], None] | None = None
    """Called before the host first waits for a GPU that has all its work but the update."""

    def frame(self, microbatch: int) -> Frame:
        """An empty frame for a microbatch, whichever stage it is of."""
        return Frame(
            microbatch=microbatch,
            rows=self.sizes[microbatch],
            weight=self.weight,
            is_first=microbatch == 0,
            step=self.step,
            first_example=self.first_example + sum(self.sizes[:microbatch]),
            feed=self.feed,
        )
