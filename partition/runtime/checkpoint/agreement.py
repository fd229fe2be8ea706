"""What the processes of a run tell each other about a checkpoint: a few bytes of JSON each, over whatever they have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.runtime.checkpoint.files import DiskError
from partition.runtime.world import World, share_all

Numbers = NDArray[np.float64]
Share = Callable[[Numbers], Sequence[Numbers]]
"""Gives this process's numbers to all and returns everybody's, by rank; all call it equally often with equally many."""


def alone(numbers: Numbers) -> Sequence[Numbers]:
    """A process by itself."""
    return [numbers]


def sharing(world: World) -> Share:
    """The processes of a run; where all ranks live in this one, it is alone."""
    if not world.is_shared:
        return alone
    return lambda numbers: share_all(world, dict.fromkeys(world.ranks, numbers))


def share_json(share: Share, document: Any) -> list[Any]:
    """What every process says, by rank. Numbers travel; bytes are numbers too."""
    mine = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    lengths = [int(length[0]) for length in share(np.array([len(mine)], dtype=np.float64))]
    padded = np.zeros(max(lengths), dtype=np.float64)
    padded[: len(mine)] = mine
    every = zip(share(padded), lengths, strict=True)
    return [json.loads(numbers[:length].astype(np.uint8).tobytes()) for numbers, length in every]


def agree(share: Share, error: DiskError | None) -> None:
    """Raise on every process what any of them ran into, once all have come here."""
    for rank, text in enumerate(share_json(share, None if error is None else str(error))):
        if text is not None:
            raise error or DiskError(f"rank {rank}: {text}")
