"""The optimal contiguous split of a chain of layers over devices in a given order.

    step       = sum of stage seconds + sum of cut seconds + (M - 1) * bottleneck + seconds paid once
    bottleneck = the largest stage seconds or cut seconds

For a fixed bound on the bottleneck the sums are minimised by dynamic programming over (stages placed, device of the
last one, layers covered). The bound lies between the least bottleneck of all splits and that of the least sum. Each one
tried halves what is left, and what least sum + (M - 1) * bound shows cannot improve the step is left out: the result is
exact.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, pairwise
from typing import Any, Final, Literal, NamedTuple, Protocol

from partition.graph import Spans

StageSeconds = Callable[[int, int, int, int], float]
"""Seconds of one microbatch on (stage index, device, first layer, last layer)."""


@dataclass(frozen=True, kw_only=True)
class SplitProblem:
    """A chain to cut into exactly `num_stages` non-empty stages."""

    num_layers: int
    num_stages: int
    num_microbatches: int
    stage_s: StageSeconds
    """Infinite where a stage does not fit its device."""
    cut_s: Callable[[int, int, int], float]
    """Seconds of one microbatch's two messages between (device, next device) for a cut after a layer."""
    once_s: StageSeconds
    """Seconds that a stage adds to the step once, whatever the number of microbatches."""
    first_alike: tuple[int, ...]
    """For each device the first of its run of neighbours that are alike in all of the above."""
    kinds: tuple[int, ...] = ()
    """Of each device what tells its stages from those of others in `rows`."""
    rows: Rows | None = None
    """Seconds of stages, to be shared by problems that differ in the order of their devices alone."""
    longest: Callable[[int, int], int] | None = None
    """The last layer that a stage may end with, by (device, first layer): beyond it none is asked for."""


class Segment(NamedTuple):
    """One stage of a split: a device and its layers, inclusive."""

    device: int
    first_layer: int
    last_layer: int
    recompute: Spans = ()
    """Runs of these layers of which nothing is kept between forward and backward."""

    @property
    def layers(self) -> tuple[int, int, Spans]:
        """What costs are asked of."""
        return self[1:]

    def recomputing_all(self) -> Segment:
        """The segment keeping nothing."""
        return self._replace(recompute=((self.first_layer, self.last_layer),))

    def covering(self, first_layer: int, last_layer: int) -> Segment:
        """Other layers on the same device; all of them are computed again where some of these are."""
        moved = Segment(self.device, first_layer, last_layer)
        return moved.recomputing_all() if self.recompute else moved


@dataclass(frozen=True, kw_only=True)
class Split:
    """The stages of a chain in order, with the sums of the formula above."""

    segments: tuple[Segment, ...]
    step_s: float
    bottleneck_s: float


Link = tuple[Any, int, int, int]
"""Device, first and last layer of a stage, after the link of the stage before it."""
State = tuple[float, float, Link | None]
"""Sum of seconds, bottleneck, last stage; plain tuples, for there are many."""
SUM: Final = 0
BOTTLENECK: Final = 1
Criterion = Literal[0, 1]
"""What a search minimises: the sum or the bottleneck of a state."""
_ROUNDING = 1e-12
"""Steps that differ by less are equal: what they sum is."""


class BoundedSearch(Protocol):
    """The splits whose bottleneck is at most a bound."""

    @property
    def next_bound(self) -> float:
        """After `best`: no bottleneck lies between the bound and this."""
        ...

    def best(self, criterion: Criterion) -> State | None:
        """The state of all stages with the least sum, or the least bottleneck; None where no split fits."""
        ...


def optimal_split(problem: SplitProblem) -> Split | None:
    """The split of least `step` that fits, the earliest cuts among equals; None where none fits."""
    rows, repeats = _Rows(problem), problem.num_microbatches - 1
    best = least_step(lambda bound: _Search(rows, bound), repeats)
    if best is None:
        return None
    return Split(segments=segments_of(best), step_s=step_of(best, repeats), bottleneck_s=best[BOTTLENECK])


def least_bottleneck(search: Callable[[float], BoundedSearch]) -> State | None:
    """The state of least bottleneck, and of those the one of least sum; None where no split fits."""
    tightest = search(math.inf).best(BOTTLENECK)
    return None if tightest is None else _found(search(tightest[BOTTLENECK]), SUM)


def least_step(search: Callable[[float], BoundedSearch], repeats: int) -> State | None:
    """The state of least sum + repeats * bottleneck; None where no split fits."""
    unbounded = search(math.inf).best(SUM)
    if unbounded is None:
        return None
    tightest = _found(search(unbounded[BOTTLENECK]), BOTTLENECK)
    low = search(tightest[BOTTLENECK])
    best = _better(unbounded, _found(low, SUM), repeats)
    return least_above(search, repeats, low.next_bound, best, unbounded)


def least_above(
    search: Callable[[float], BoundedSearch], repeats: int, lowest: float, best: State, high: State
) -> State:
    """The better of a state and of all whose bottleneck is from `lowest` to that of `high`, the least sum of these."""
    # Splits of a bottleneck between these two sum to no less than the higher of them does.
    open_ranges = [(lowest, high)]
    best = _better(best, high, repeats)
    while open_ranges:
        lowest, high = open_ranges.pop()
        if lowest >= high[BOTTLENECK] or high[SUM] + repeats * lowest >= step_of(best, repeats) * (1 - _ROUNDING):
            continue
        middle_search = search((lowest + high[BOTTLENECK]) / 2)
        middle = _found(middle_search, SUM)
        best = _better(best, middle, repeats)
        open_ranges += [(middle_search.next_bound, high), (lowest, middle)]
    return best


def _found(search: BoundedSearch, criterion: Criterion) -> State:
    """The best state under a bound that some split meets."""
    state = search.best(criterion)
    assert state is not None, "a bound that a split meets admits that split"
    return state


def step_of(state: State, repeats: int) -> float:
    """What a state's step takes, with so many microbatches after the first."""
    return state[SUM] + repeats * state[BOTTLENECK]


def _better(best: State, other: State, repeats: int) -> State:
    """The one of least step; of equals the one of least bottleneck."""
    least_s, other_s = step_of(best, repeats), step_of(other, repeats)
    if abs(other_s - least_s) <= _ROUNDING * least_s:
        return other if other[BOTTLENECK] < best[BOTTLENECK] else best
    return other if other_s < least_s else best


def segments_of(state: State) -> tuple[Segment, ...]:
    """The stages of a state, first to last."""
    segments, link = [], state[2]
    while link is not None:
        link, device, first, last = link
        segments.append(Segment(device, first, last))
    return tuple(reversed(segments))


class _Row(NamedTuple):
    """What a stage that begins at one layer takes on one device, by its last layer."""

    stage_s: list[float]
    once_s: list[float]
    is_sorted: bool
    """A longer stage takes no less: no more need be looked at than a bound admits."""


Rows = dict[tuple[int, int, int], _Row]
"""By stage, device or its kind, and first layer."""


class _Rows:
    """The seconds of a problem, each asked for once, however often it is searched."""

    def __init__(self, problem: SplitProblem) -> None:
        self.problem = problem
        self._rows: Rows = {} if problem.rows is None else problem.rows

    def row(self, stage: int, device: int, first: int) -> _Row:
        """The stages from a first layer on."""
        problem, ends = self.problem, self._ends(stage, first)
        device = problem.first_alike[device]
        key = (stage, problem.kinds[device] if problem.kinds else device, first)
        if key not in self._rows:
            if problem.longest is not None:
                ends = range(ends.start, min(ends.stop, problem.longest(device, first) + 1))
            stage_s = [problem.stage_s(stage, device, first, last) for last in ends]
            once_s = [problem.once_s(stage, device, first, last) for last in ends]
            self._rows[key] = _Row(stage_s, once_s, is_sorted=all(a <= b for a, b in pairwise(stage_s)))
        return self._rows[key]

    @cached_property
    def earliest(self) -> list[int]:
        """Of every stage the first layer before which it cannot begin: the rest would be too much for those to come."""
        problem, begin = self.problem, self.problem.num_layers
        longest, devices = problem.longest, sorted(set(problem.first_alike))
        if longest is None:
            return [0] * problem.num_stages
        found = []
        for _ in range(problem.num_stages):
            firsts, end = range(begin), begin - 1
            begin = bisect_left(firsts, True, key=lambda first: any(longest(of, first) >= end for of in devices))
            found.append(begin)
        return found[::-1]

    def _ends(self, stage: int, first: int) -> range:
        """The last layers that a stage may have: the last stage takes all, others leave a layer for each to come."""
        remaining = self.problem.num_stages - 1 - stage
        if remaining == 0:
            return range(self.problem.num_layers - 1, self.problem.num_layers)
        return range(first, self.problem.num_layers - remaining)


class _Search:
    """The dynamic program under one bound; `next_bound` is the smallest value that it had to refuse."""

    def __init__(self, rows: _Rows, bound: float) -> None:
        self.rows = rows
        self.problem = rows.problem
        # What does not fit takes infinitely long, and no bound admits it.
        self.bound = min(bound, sys.float_info.max)
        self.next_bound = math.inf

    def best(self, criterion: Criterion) -> State | None:
        """The state of all stages with the least sum, or the least bottleneck, and nothing above the bound."""
        states: dict[tuple[int, int], State] = {(-1, 0): (0.0, 0.0, None)}
        for stage in range(self.problem.num_stages):
            states = self._place(stage, states, criterion)
        complete = [state for (_, covered), state in states.items() if covered == self.problem.num_layers]
        return min(complete, key=lambda state: state[criterion], default=None)

    def _place(
        self, stage: int, states: dict[tuple[int, int], State], criterion: Criterion
    ) -> dict[tuple[int, int], State]:
        """Extend every state, keyed by (device of the last stage, layers covered), by one stage."""
        problem, bound, refused = self.problem, self.bound, [self.next_bound]
        extended: dict[tuple[int, int], State] = {}
        is_last, earliest = stage == problem.num_stages - 1, self.rows.earliest[stage]
        for (previous, covered), (sum_so_far, bottleneck_so_far, link) in states.items():
            if covered < earliest:
                continue
            for device in self._devices(stage, previous):
                cut_s = problem.cut_s(previous, device, covered - 1) if stage else 0.0
                if cut_s > bound:
                    refused.append(cut_s)
                    continue
                floor_s = max(bottleneck_so_far, cut_s)
                row = self.rows.row(stage, device, covered)
                num_admitted = bisect_right(row.stage_s, bound) if row.is_sorted else len(row.stage_s)
                refused += row.stage_s[num_admitted : num_admitted + 1]
                ends = count(problem.num_layers - 1 if is_last else covered)
                admitted = islice(zip(ends, row.stage_s, row.once_s, strict=False), num_admitted)
                for last, stage_s, once_s in admitted:
                    if stage_s > bound:
                        refused.append(stage_s)
                        continue
                    sum_s = sum_so_far + stage_s + cut_s + once_s
                    bottleneck_s = stage_s if stage_s > floor_s else floor_s
                    known = extended.get((device, last + 1))
                    if known is None or (sum_s, bottleneck_s)[criterion] < known[criterion]:
                        extended[device, last + 1] = (sum_s, bottleneck_s, (link, device, covered, last))
        self.next_bound = min(refused)
        return extended

    def _devices(self, stage: int, previous: int) -> list[int]:
        """The devices that leave room for the stages before and after; of those alike the first that is free."""
        alike = self.problem.first_alike
        spare = len(alike) - self.problem.num_stages
        room = range(max(stage, previous + 1), stage + spare + 1)
        return [device for device in room if device == previous + 1 or device == alike[device]]
