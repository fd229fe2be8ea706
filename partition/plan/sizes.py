"""Which minibatches, replicas and microbatches are tried: what the costs admit, and of that what may be worth it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from partition.config import PlannerConfig
from partition.config.schema import LARGEST_MICROBATCH_COUNT

MOST_MICROBATCHES = 64
"""The largest number of microbatches tried unless the experiment names others."""

Fits = Callable[[int, int], bool]
"""Whether one device holds the whole network and one microbatch at a time, by microbatch size and their number."""


class Steps(NamedTuple):
    """A minibatch and the microbatches that one device takes it in."""

    minibatch_size: int
    num_microbatches: int


class Sizes(Protocol):
    """What a search asks of the sizes of an experiment."""

    def whole(self) -> list[Steps]:
        """The minibatch as one microbatch, where that is admitted."""
        ...

    def smaller(self, fits: Fits) -> list[Steps]:
        """Smaller minibatches for one device."""
        ...

    def accumulations(self, fits: Fits) -> list[Steps]:
        """The minibatch in several microbatches on one device."""
        ...

    def recomputations(self, fits: Fits) -> list[Steps]:
        """The minibatch in fewer microbatches than fit one device, or in one, so that recomputation may help."""
        ...

    def replicas(self, num_devices: int) -> list[int]:
        """Numbers of replicas, from 2."""
        ...

    def of_replica(self, num_replicas: int, fits: Fits) -> list[int]:
        """Numbers of microbatches of a replica that is one device."""
        ...

    def of_pipeline(self, num_replicas: int, num_ranks: int) -> list[int]:
        """Numbers of microbatches of a replica of several ranks."""
        ...

    def refusal(self, sizes: Sequence[Sequence[int]]) -> str:
        """Why microbatches of these sizes, by replica, cannot be; empty where they can."""
        ...


class AnySizes:
    """Costs of any number of examples."""

    def __init__(self, minibatch_size: int, planner: PlannerConfig) -> None:
        self.minibatch_size = minibatch_size
        self.planner = planner

    def whole(self) -> list[Steps]:
        """Always admitted."""
        return [Steps(self.minibatch_size, 1)]

    def smaller(self, fits: Fits) -> list[Steps]:
        """Those asked for; or halves, and the largest that fits."""
        size, asked = self.minibatch_size, self.planner.minibatch_sizes
        if asked is not None:
            return [Steps(smaller, 1) for smaller in asked]
        num_fitting = bisect_left(range(1, size + 1), True, key=lambda some: not fits(some, 1))
        halves = {size >> shift for shift in range(1, 4)}
        found = sorted({one for one in (*halves, max(num_fitting, 1)) if 0 < one < size}, reverse=True)
        return [Steps(smaller, 1) for smaller in found]

    def accumulations(self, fits: Fits) -> list[Steps]:
        """Numbers asked for; or powers of two, and the fewest that fit."""
        size, asked = self.minibatch_size, self.planner.num_microbatches
        if asked is None:
            asked = tuple(sorted({*powers_of_two(size), _fewest(size, fits)}))
        return [Steps(size, count) for count in asked if count > 1]

    def recomputations(self, fits: Fits) -> list[Steps]:
        """Of the numbers asked for, or powers of two, those that do not fit."""
        size, asked = self.minibatch_size, self.planner.num_microbatches
        counts = (count for count in asked or powers_of_two(size) if count <= size)
        return [Steps(size, count) for count in counts if not fits(-(-size // count), count)]

    def replicas(self, num_devices: int) -> list[int]:
        """Powers of two, and as many as there are devices or examples."""
        most = min(num_devices, self.minibatch_size)
        return sorted({count for count in (*powers_of_two(most), most) if count > 1})

    def of_replica(self, num_replicas: int, fits: Fits) -> list[int]:
        """As few as fit, and a few more: each costs its share of every product's efficiency and nothing else."""
        most, asked = self.minibatch_size // num_replicas, self.planner.num_microbatches
        if asked is None:
            asked = tuple(sorted({1, _fewest(-(-self.minibatch_size // num_replicas), fits)}))
        return [count for count in asked if count <= most]

    def of_pipeline(self, num_replicas: int, num_ranks: int) -> list[int]:
        """Enough to keep every stage busy; fewer only where there are not as many examples."""
        if self.planner.num_microbatches is not None:
            return list(self.planner.num_microbatches)
        counts = powers_of_two(self.minibatch_size // num_replicas)
        return [count for count in counts if count >= num_ranks] or counts[-1:]

    def refusal(self, sizes: Sequence[Sequence[int]]) -> str:
        """A microbatch has an example at least."""
        count, num_replicas = len(sizes[0]), len(sizes)
        size = sum(map(sum, sizes))
        if num_replicas * count <= size:
            return ""
        replicas = f" in each of {num_replicas} replicas" if num_replicas > 1 else ""
        return (
            f"{count} microbatches{replicas}, but the minibatch has {size} examples; take num_microbatches <= "
            f"{size // num_replicas}"
        )


class WholeMicrobatches:
    """Costs of microbatches of one size, of which every minibatch is a whole number."""

    def __init__(self, minibatch_size: int, planner: PlannerConfig, rows: int) -> None:
        self.minibatch_size = minibatch_size
        self.planner = planner
        self.rows = rows
        self.count = minibatch_size // rows

    def whole(self) -> list[Steps]:
        """Admitted where the minibatch is one microbatch."""
        return [Steps(self.rows, 1)] if self.count == 1 else []

    def smaller(self, fits: Fits) -> list[Steps]:
        """Those asked for, or halves, in whole microbatches; as many fit as one does."""
        del fits
        asked = self.planner.minibatch_sizes
        if asked is None:
            halves = sorted({self.count >> shift for shift in range(1, 4)} - {0}, reverse=True)
            asked = tuple(self.rows * count for count in halves)
        return [Steps(size, size // self.rows) for size in asked]

    def accumulations(self, fits: Fits) -> list[Steps]:
        """The one number that there are costs for, or what is asked."""
        del fits
        return [Steps(self.minibatch_size, count) for count in self._asked_or(self.count) if count > 1]

    def recomputations(self, fits: Fits) -> list[Steps]:
        """None: a table does not say what it would take."""
        del fits
        return []

    def replicas(self, num_devices: int) -> list[int]:
        """Those that share the microbatches evenly."""
        return [count for count in range(2, min(num_devices, self.count) + 1) if self.count % count == 0]

    def of_replica(self, num_replicas: int, fits: Fits) -> list[int]:
        """Its share of the microbatches, or what is asked."""
        del fits
        return self._asked_or(self.count // num_replicas)

    def of_pipeline(self, num_replicas: int, num_ranks: int) -> list[int]:
        """Its share of the microbatches, or what is asked."""
        del num_ranks
        return self._asked_or(self.count // num_replicas)

    def _asked_or(self, count: int) -> list[int]:
        return [count] if self.planner.num_microbatches is None else list(self.planner.num_microbatches)

    def refusal(self, sizes: Sequence[Sequence[int]]) -> str:
        """There are costs of one size only."""
        if all(size == self.rows for of_replica in sizes for size in of_replica):
            return ""
        largest, num_replicas = sizes[0][0], len(sizes)
        wanted, rest = divmod(sum(map(sum, sizes)), num_replicas * self.rows)
        advice = "take fewer replicas" if rest else f"take num_microbatches = {wanted}"
        return f"microbatches of {largest} examples, but there are costs of {self.rows} only; {advice}"


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to a limit, and to the most microbatches that are tried."""
    limit = min(limit, MOST_MICROBATCHES)
    return [1 << shift for shift in range(limit.bit_length()) if 1 << shift <= limit]


def _fewest(size: int, fits: Fits) -> int:
    """The fewest microbatches that fit one device; 1 where none do."""
    return next((count for count in _counts_that_matter(size) if fits(-(-size // count), count)), 1)


def _counts_that_matter(size: int) -> Iterator[int]:
    """Numbers of microbatches in increasing order, each the least for its largest microbatch.

    Whether they fit is not monotone: more microbatches are smaller, but each has a loss to be kept.
    """
    count = 1
    while count <= min(size, LARGEST_MICROBATCH_COUNT):
        yield count
        largest = -(-size // count)
        if largest == 1:
            return
        count = -(-size // (largest - 1))
