"""The candidates that matter, found without pricing those that cannot: most promising first.

Every way over several devices has a bound on its step, first one for all of its splits, then one for the split that it
would be priced on. A way is priced only while its bound leaves it a chance to be the best of its kind (strategy and
number of devices), or the first or second of all, which the certificate needs. What is left out is slower than one of
its kind that fits: the choice, its rival and the best of every kind are those of the full search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from partition.plan.candidate import Candidate
from partition.plan.choice import is_out_of_reach
from partition.plan.search import Search
from partition.plan.shape import Shape

MOST_ACTIONS = 60_000
"""Computations of all schedules of a search of which every way is priced: a second."""
TIED = 1 + 4e-6
"""Steps within this of one another are priced, so that ties are settled as they are in the full search."""


@dataclass(frozen=True, kw_only=True)
class Unpriced:
    """A way that cannot be the best of its kind."""

    name: str
    strategy: str
    num_devices: int
    least_step_s: float
    """What its step cannot be below."""


class _Waiting(NamedTuple):
    """A way not priced yet, ordered by its bound."""

    bound_s: float
    order: int
    shape: Shape
    is_of_split: bool
    """The bound is that of the split that the way would be priced on."""


def find_candidates(search: Search, *, is_complete: bool = False) -> tuple[tuple[Candidate, ...], tuple[Unpriced, ...]]:
    """Every candidate of a small search, and what matters of a larger one unless all are asked for."""
    if is_complete or sum(map(_num_actions, search.shapes())) <= MOST_ACTIONS:
        return search.candidates(), ()
    return PrunedSearch(search=search, has_kinds=not search.is_large).run()


def _num_actions(shape: Shape) -> int:
    """Computations of one replica's schedule, forward and backward."""
    return 2 * shape.num_stages * shape.num_microbatches


@dataclass(kw_only=True)
class PrunedSearch:
    """One search, most promising first."""

    search: Search
    has_kinds: bool = True
    """The best of every kind is found, not the first two of all alone."""
    found: list[Candidate] = field(default_factory=list)
    unpriced: list[Unpriced] = field(default_factory=list)
    _best: dict[tuple[str, int], float] = field(default_factory=dict)
    """Of every kind the shortest step."""
    _first: list[tuple[float, float]] = field(default_factory=list)
    """The first two of all, as the objective orders them."""

    def run(self) -> tuple[tuple[Candidate, ...], tuple[Unpriced, ...]]:
        """What was priced, and what need not be."""
        waiting: list[_Waiting] = []
        for order, offer in enumerate(self.search.offers()):
            if isinstance(offer, Shape):
                heappush(waiting, _Waiting(self.search.least_step_s(offer), order, offer, is_of_split=False))
            else:
                self._take([offer])
        while waiting:
            self._next(waiting)
        return tuple(self.found), tuple(self.unpriced)

    def _next(self, waiting: list[_Waiting]) -> None:
        bound_s, order, shape, is_of_split = heappop(waiting)
        if not self._may_matter(shape, bound_s):
            self._leave(shape, bound_s)
        elif is_of_split:
            self._take(self.search.price_all(shape))
        else:
            bound_s = max(bound_s, self.search.least_step_on_split_s(shape))
            heappush(waiting, _Waiting(bound_s, order, shape, is_of_split=True))

    def _leave(self, shape: Shape, bound_s: float) -> None:
        self.unpriced.append(
            Unpriced(name=shape.name, strategy=shape.strategy, num_devices=shape.num_ranks * shape.num_replicas,
                     least_step_s=bound_s)
        )  # fmt: skip

    def _take(self, candidates: list[Candidate]) -> None:
        self.found += candidates
        for candidate in candidates:
            if candidate.feasible and candidate.exact_gradient and candidate.predicted is not None:
                step_s = candidate.predicted.step_s
                kind = candidate.strategy, candidate.num_devices
                self._best[kind] = min(step_s, self._best.get(kind, math.inf))
                if not is_out_of_reach(candidate):
                    self._first = sorted([*self._first, self._rank(step_s, candidate.num_devices)])[:2]

    def _rank(self, step_s: float, num_devices: int) -> tuple[float, float]:
        """What the objective orders by."""
        match self.search.settings.planner.objective:
            case "fewest_devices":
                return num_devices, step_s
            case "device_seconds":
                return 0, step_s * num_devices
            case _:
                return 0, step_s

    def _may_matter(self, shape: Shape, bound_s: float) -> bool:
        """Whether it may be the best of its kind, or one of the first two of all."""
        num_devices, least_s = shape.num_ranks * shape.num_replicas, bound_s / TIED
        if self.has_kinds and least_s <= self._best.get((shape.strategy, num_devices), math.inf):
            return True
        return len(self._first) < 2 or self._rank(least_s, num_devices) <= self._first[1]
