"""The dynamic program of `split.py` on arrays, where memory is not looked at and a stage is a difference of sums.

    stage(i..j-1) = ends[j] - starts[i]            sum[j] = ends[j] + min over i of (before[i] - starts[i])

so the least sum of all ways to end a stage before layer j is a minimum over a window of i, whose start follows from the
bound on the bottleneck: the longest stage that it admits. The windows of a stage share one table of minima over 1, 2,
4, ... neighbours. A thousand stages of ten thousand layers take a fraction of a second.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partition.plan.layer_sums import Floats, Sums
from partition.plan.split import BOTTLENECK, SUM, Criterion, Link, Split, State, least_above, segments_of, step_of

Integers = NDArray[np.intp]
SLACK = 1 + 1e-12
"""A bound admits what exceeds it by rounding."""
FEW_VALUES = 400
"""In which looking through every window takes less than a table."""


@dataclass(frozen=True, kw_only=True)
class ArrayProblem:
    """A chain to cut into exactly `num_stages` non-empty stages, on devices in their order."""

    num_layers: int
    num_stages: int
    num_microbatches: int
    sums: tuple[Sums, ...]
    """Of every device."""
    cut_s: Callable[[int, int], Floats]
    """Seconds of one microbatch's two messages between (device, next device), by the number of layers before a cut."""
    once_s: Callable[[int, int], float]
    """Seconds that the first stage adds to the step once, by (device, last layer); more for more layers."""
    first_alike: tuple[int, ...]
    earliest: tuple[Integers, ...] = ()
    """Of every device the earliest first layer of a stage, by the number of layers up to its last; empty: any will do.

    With these there are as many devices as stages."""

    @cached_property
    def kinds(self) -> tuple[Sums, ...]:
        """The distinct sums."""
        return tuple({id(sums): sums for sums in self.sums}.values())


def array_split(problem: ArrayProblem) -> Split:
    """The split of least `step`, of equals that of the least bottleneck.

    A split whose bottleneck is above that of `high` takes longer than the best one at the least bottleneck, whatever
    its sum is.
    """
    repeats = problem.num_microbatches - 1
    if repeats == 0:
        best = _state(problem, math.inf)
    else:
        low = ArraySearch(problem, least_bottleneck(problem))
        best = low.found()
        spare = best[SUM] - _least_sum(problem)
        highest = best[BOTTLENECK] + max(spare, 0.0) / repeats
        if highest >= low.next_bound:
            best = least_above(lambda bound: ArraySearch(problem, bound), repeats, low.next_bound, best,
                               _state(problem, highest))  # fmt: skip
    return Split(segments=segments_of(best), step_s=step_of(best, repeats), bottleneck_s=best[BOTTLENECK])


def _state(problem: ArrayProblem, bound: float) -> State:
    return ArraySearch(problem, bound).found()


def _least_sum(problem: ArrayProblem) -> float:
    """What no split sums to less than, what is paid once apart.

    On devices of one kind every cut adds what it saves and carries, wherever the others are: of each kind of cut the
    cheapest places are taken.
    """
    if len(problem.kinds) > 1 or problem.first_alike[-1] == len(problem.sums) - 1 > problem.num_stages - 1:
        return ArraySearch(problem, math.inf, has_once=False).found()[SUM]
    (sums,) = problem.kinds
    counts: dict[int, int] = {}
    cuts = [problem.cut_s(device, device + 1) for device in range(problem.num_stages - 1)]
    for cut_s in cuts:
        counts[id(cut_s)] = counts.get(id(cut_s), 0) + 1
    added = sums.ends[1:-1] - sums.starts[1:]
    least_s = [
        float(np.sort(cut_s[1:-1] + added)[: counts[key]].sum()) for key, cut_s in {id(of): of for of in cuts}.items()
    ]
    return sums.whole_s + sum(least_s) - abs(sums.whole_s) * (SLACK - 1)


def least_bottleneck(problem: ArrayProblem) -> float:
    """The least bottleneck of all splits, to rounding."""
    low = floor_of(problem.kinds, problem.num_stages)
    search = ArraySearch(problem, low)
    if search.best(SUM) is not None:
        return low
    rise, high = 1.01, math.inf
    while high == math.inf:
        state = ArraySearch(problem, low * rise).best(SUM)
        rise, high = rise**2, state[BOTTLENECK] if state else math.inf
    # No split keeps to `low`, one keeps to `high`: halve until nothing lies between them.
    while (above := ArraySearch(problem, low).next_bound) < high / SLACK:
        middle = (above + high) / 2
        state = ArraySearch(problem, middle).best(SUM)
        low, high = (low, min(high, state[BOTTLENECK])) if state else (middle, high)
    return high


def floor_of(kinds: tuple[Sums, ...], num_stages: int) -> float:
    """What no bottleneck of so many stages is below: each of them on the device best for it, messages for nothing."""
    low = float(np.minimum.reduce([sums.ends[1:] - sums.starts for sums in kinds]).max())
    high = min(sums.whole_s for sums in kinds)
    lists = [sums.lists for sums in kinds]
    if len(kinds) == 1:
        low = max(low, kinds[0].cut_s(num_stages) / num_stages)
    if _reaches(lists, low, num_stages):
        return low
    while low * SLACK < high:
        middle = (low + high) / 2
        low, high = (low, middle) if _reaches(lists, middle, num_stages) else (middle, high)
    return low


def _reaches(kinds: list[tuple[list[float], list[float]]], bound: float, num_stages: int) -> bool:
    """Whether so many stages within a bound cover all layers, each as long as it can be."""
    covered, last, bound = 0, len(kinds[0][1]), bound * SLACK
    for _ in range(num_stages):
        covered = max(bisect_right(ends, starts[covered] + bound, covered) - 1 for ends, starts in kinds)
        if covered >= last:
            return True
    return False


class _Reached(NamedTuple):
    """The least sums of some stages, the last of them on one device."""

    sums: Floats
    """By the number of layers covered, from the stage's first on."""
    before: Floats
    """Sum before the last stage, its cut included, less what its first layer starts at; by that layer."""
    previous: Integers
    """Device of the stage before, by the first layer."""


class ArraySearch:
    """The splits whose bottleneck is at most a bound."""

    def __init__(self, problem: ArrayProblem, bound: float, *, has_once: bool = True) -> None:
        self.problem = problem
        self.bound = bound * SLACK
        self.has_once = has_once
        self._firsts = {id(sums): _first_layers(sums, self.bound) for sums in problem.kinds}
        self._later_firsts: dict[tuple[int, int], Integers] = {}
        # By identity, which holds as long as the array lives: it is kept beside the answer.
        self._limited: dict[int, tuple[Floats, bool]] = {}

    @cached_property
    def next_bound(self) -> float:
        """No bottleneck lies between the bound and this: the smallest stage or cut that is above it."""
        found, ends = math.inf, np.arange(1, self.problem.num_layers + 1)
        for sums in self.problem.kinds:
            first = self._firsts[id(sums)][1:]
            has = first > 0
            found = min(found, float((sums.ends[ends[has]] - sums.starts[first[has] - 1]).min(initial=math.inf)))
        for cut_s in self._cuts():
            found = min(found, float(cut_s[cut_s > self.bound].min(initial=math.inf)))
        return found

    def _firsts_on(self, device: int) -> Integers:
        """For every number of layers covered the first layer of the longest last stage on a device."""
        sums, earliest = self.problem.sums[device], self.problem.earliest
        if not earliest:
            return self._firsts[id(sums)]
        key = id(sums), id(earliest[device])
        if key not in self._later_firsts:
            self._later_firsts[key] = np.maximum(self._firsts[id(sums)], earliest[device])
        return self._later_firsts[key]

    @cached_property
    def _firsts_alike(self) -> list[int]:
        """The devices that are the first of those alike."""
        return [device for device, first in enumerate(self.problem.first_alike) if device == first]

    def _cuts(self) -> list[Floats]:
        """The seconds of all cuts between two devices of which the one may follow the other."""
        problem, firsts = self.problem, self._firsts_alike
        spare = len(problem.sums) - problem.num_stages
        found = {}
        for device in range(len(problem.sums) - 1):
            since, until = bisect_right(firsts, device + 1), bisect_right(firsts, device + spare + 1)
            for following in (device + 1, *firsts[since:until]):
                cut_s = problem.cut_s(device, following)
                found[id(cut_s)] = cut_s
        return [cut_s[1:-1] for cut_s in found.values()]

    def found(self) -> State:
        """The state of least sum; there is one."""
        state = self.best(SUM)
        assert state is not None, "a bound that a split meets admits that split"
        return state

    def best(self, criterion: Criterion) -> State | None:
        """The state of all stages with the least sum; None where no split keeps to the bound."""
        assert criterion == SUM, "the least bottleneck is found by trying bounds"
        ranges = self._ranges()
        if ranges is None:
            return None
        if self._is_path:
            return self._best_on_path(ranges)
        reached: list[dict[int, _Reached]] = []
        for stage in range(self.problem.num_stages):
            before = reached[-1] if reached else {}
            devices = self._devices(stage, before)
            reached.append({device: self._place(stage, device, ranges, before) for device in devices})
        last = min(reached[-1], key=lambda device: float(reached[-1][device].sums[-1]))
        sum_s = float(reached[-1][last].sums[-1])
        return self._traced(reached, ranges, last, sum_s) if math.isfinite(sum_s) else None

    @property
    def _is_path(self) -> bool:
        """Whether every stage has one device that it can be on, that of its own number."""
        return self._firsts_alike == [0] or len(self.problem.sums) == self.problem.num_stages

    def _best_on_path(self, ranges: list[tuple[int, int]]) -> State | None:
        """The same without a choice of devices."""
        problem, ends = self.problem, np.arange(self.problem.num_layers + 1)
        reached = self._place(0, 0, ranges, {})
        sum_s, found = reached.sums, [reached.before]
        for stage in range(1, problem.num_stages):
            sums, (low, high), (since, until) = problem.sums[stage], ranges[stage], ranges[stage - 1]
            before = self._way(sum_s, problem.cut_s(stage - 1, stage), since, until) - sums.starts[since : until + 1]
            starts = np.maximum(self._firsts_on(stage)[low : high + 1], since) - since
            stops = np.minimum(ends[low : high + 1], until + 1) - since
            sum_s = sums.ends[low : high + 1] + window_minima(before, starts, stops)
            found.append(before)
        last_s = float(sum_s[-1])
        return self._traced_on_path(found, ranges, last_s) if math.isfinite(last_s) else None

    def _traced_on_path(self, found: list[Floats], ranges: list[tuple[int, int]], sum_s: float) -> State:
        end, bottleneck_s, firsts = self.problem.num_layers, 0.0, []
        for stage in range(self.problem.num_stages - 1, -1, -1):
            sums, (since, until) = self.problem.sums[stage], ranges[stage - 1] if stage else (0, 0)
            start = max(int(self._firsts_on(stage)[end]), since) - since
            first = start + int(found[stage][start : min(end, until + 1) - since].argmin()) + since
            bottleneck_s = max(bottleneck_s, float(sums.ends[end] - sums.starts[first]))
            if stage:
                bottleneck_s = max(bottleneck_s, float(self.problem.cut_s(stage - 1, stage)[first]))
            firsts.append((stage, first, end - 1))
            end = first
        link: Link | None = None
        for stage, first, last in reversed(firsts):
            link = (link, stage, first, last)
        return sum_s, bottleneck_s, link

    def _devices(self, stage: int, before: dict[int, _Reached]) -> list[int]:
        """The devices that leave room for the stages before and after; of those alike the first that is free."""
        alike = self.problem.first_alike
        end = stage + len(alike) - self.problem.num_stages + 1
        followers = {device + 1 for device in before or (-1,) if stage <= device + 1 < end}
        firsts = self._firsts_alike[bisect_left(self._firsts_alike, stage) : bisect_left(self._firsts_alike, end)]
        return sorted(followers.union(firsts))

    def _ranges(self) -> list[tuple[int, int]] | None:
        """For every stage the fewest and most layers that it may end at; None where the stages do not reach."""
        layers, stages = self.problem.num_layers, self.problem.num_stages
        first = np.minimum.reduce(list(self._firsts.values())).tolist()
        most, high = [], 0
        for stage in range(stages):
            # Any stage that begins at or before `high` may end where its first layer can be that.
            high = min(bisect_right(first, high, high) - 1, layers - (stages - 1 - stage))
            most.append(high)
        low, ranges = layers, [(layers, layers)]
        if most[-1] < layers:
            return None
        for stage in range(stages - 2, -1, -1):
            low = max(first[low], stage + 1)
            if low > most[stage]:
                return None
            ranges.append((low, most[stage]))
        return ranges[::-1]

    def _place(self, stage: int, device: int, ranges: list[tuple[int, int]], before: dict[int, _Reached]) -> _Reached:
        """Every way to end a stage on a device."""
        sums, (low, high) = self.problem.sums[device], ranges[stage]
        first = self._firsts_on(device)[low : high + 1]
        if stage == 0:
            found = sums.ends[low : high + 1] - sums.starts[0]
            if self.has_once:
                found = found + [self.problem.once_s(device, end - 1) for end in range(low, high + 1)]
            start = np.array([-sums.starts[0]])
            return _Reached(np.where(first == 0, found, math.inf), start, np.full(1, -1, dtype=np.intp))
        since, until = ranges[stage - 1]
        sum_s, previous = self._begin(device, since, until, before)
        sum_s = sum_s - sums.starts[since : until + 1]
        starts = np.maximum(first, since) - since
        stops = np.minimum(np.arange(low, high + 1), until + 1) - since
        return _Reached(sums.ends[low : high + 1] + window_minima(sum_s, starts, stops), sum_s, previous)

    def _begin(self, device: int, since: int, until: int, before: dict[int, _Reached]) -> tuple[Floats, Integers]:
        """The least sum before a stage on a device, its cut included, and the device of the stage before."""
        is_first = device == self.problem.first_alike[device]
        others = [other for other in before if other < device and (is_first or device == other + 1)]
        ways = [self._way(before[other].sums, self.problem.cut_s(other, device), since, until) for other in others]
        if len(ways) == 1:
            return ways[0], np.full(until + 1 - since, others[0], dtype=np.intp)
        best, previous = np.full(until + 1 - since, math.inf), np.full(until + 1 - since, -1, dtype=np.intp)
        for other, way in zip(others, ways, strict=True):
            is_better = way < best
            best = np.where(is_better, way, best)
            previous[is_better] = other
        return best, previous

    def _way(self, sum_s: Floats, cut_s: Floats, since: int, until: int) -> Floats:
        """The sums before a stage that follows one device over its cuts; infinite where the bound refuses a cut."""
        if id(cut_s) not in self._limited:
            self._limited[id(cut_s)] = cut_s, bool((cut_s > self.bound).any())
        here = cut_s[since : until + 1]
        way: Floats = sum_s + here
        return np.where(here <= self.bound, way, math.inf) if self._limited[id(cut_s)][1] else way

    def _traced(
        self, reached: list[dict[int, _Reached]], ranges: list[tuple[int, int]], device: int, sum_s: float
    ) -> State:
        """The stages that lead to the last state."""
        end, bottleneck_s, stages = self.problem.num_layers, 0.0, []
        for stage in range(self.problem.num_stages - 1, -1, -1):
            of, sums = reached[stage][device], self.problem.sums[device]
            since, until = ranges[stage - 1] if stage else (0, 0)
            start = max(int(self._firsts_on(device)[end]), since) - since
            begin = start + int(of.before[start : min(end, until + 1) - since].argmin())
            first = begin + since
            bottleneck_s = max(bottleneck_s, float(sums.ends[end] - sums.starts[first]))
            stages.append((device, first, end - 1))
            previous = int(of.previous[begin])
            if stage:
                bottleneck_s = max(bottleneck_s, float(self.problem.cut_s(previous, device)[first]))
            device, end = previous, first
        link: Link | None = None
        for placed, first, last in reversed(stages):
            link = (link, placed, first, last)
        return sum_s, bottleneck_s, link


def _first_layers(sums: Sums, bound: float) -> Integers:
    """For every number of layers covered the first layer of the longest last stage within a bound."""
    found = np.searchsorted(sums.starts, sums.ends - bound, side="left")
    found[0] = 0
    return found


def window_minima(values: Floats, starts: Integers, stops: Integers) -> Floats:
    """The least of values[start:stop] for many windows in increasing order; infinite where one is empty.

    Over few values every window is looked through. Else row k of a table has the minima over 2**k neighbours, and a
    window is covered by two of them.
    """
    return _found_in_few(values, starts, stops) if len(values) <= FEW_VALUES else _found_in_table(values, starts, stops)


def _found_in_few(values: Floats, starts: Integers, stops: Integers) -> Floats:
    count = len(values)
    padded = np.empty(count + 1)
    padded[:count], padded[count] = values, math.inf
    edges = np.empty(2 * len(starts), dtype=np.intp)
    # A window that begins behind the values is empty, as is one that would have to.
    edges[::2] = starts if starts[-1] <= count else np.minimum(starts, count)
    edges[1::2] = stops
    found: Floats = np.minimum.reduceat(padded, edges)[::2]
    found[starts >= stops] = math.inf
    return found


def _found_in_table(values: Floats, starts: Integers, stops: Integers) -> Floats:
    widths = stops - starts
    table = np.empty((max(len(values).bit_length(), 1), len(values)))
    table[0] = values
    for level in range(1, len(table)):
        span = 1 << (level - 1)
        np.minimum(table[level - 1, :-span], table[level - 1, span:], out=table[level, :-span])
    is_empty = widths <= 0 if int(widths.min()) <= 0 else None
    if is_empty is not None:
        starts, stops, widths = (np.where(is_empty, other, of) for of, other in ((starts, 0), (stops, 1), (widths, 1)))
    levels = _levels(len(values).bit_length())[widths]
    found: Floats = np.minimum(table[levels, starts], table[levels, stops - (1 << levels)])
    if is_empty is not None:
        found[is_empty] = math.inf
    return found


@cache
def _levels(bits: int) -> Integers:
    """Of every width below 2**bits the largest k with 2**k no wider."""
    return np.array([max(width.bit_length() - 1, 0) for width in range(1 << bits)], dtype=np.intp)
