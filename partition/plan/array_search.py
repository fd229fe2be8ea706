"""The splits under a bound on the bottleneck on arrays: memory is not looked at, a stage is a difference of sums.

    stage(i..j-1) = ends[j] - starts[i]            sum[j] = ends[j] + min over i of (before[i] - starts[i])

so the least sum of all ways to end a stage before layer j is a minimum over a window of i, whose start follows from the
bound: the longest stage that it admits. The windows of a stage share one table of minima over 1, 2, 4, ... neighbours.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from partition.plan.layer_sums import Cuts, Floats, Sums
from partition.plan.split import SUM, Criterion, Link, State
from partition.plan.window_minima import Integers, window_minima

SLACK = 1 + 1e-12
"""A bound admits what exceeds it by rounding."""


@dataclass(frozen=True, kw_only=True)
class ArrayProblem:
    """A chain to cut into exactly `num_stages` non-empty stages, on devices in their order."""

    num_layers: int
    num_stages: int
    num_microbatches: int
    kinds: tuple[Sums, ...]
    """Of every kind of device."""
    kind_of: tuple[int, ...]
    """Of every device."""
    cuts: Callable[[int, int], Cuts]
    """Between (device, next device)."""
    once_s: Callable[[int, int], float]
    """Seconds that the first stage adds to the step once, by (device, last layer); more for more layers."""
    first_alike: tuple[int, ...]
    earliest: tuple[Integers, ...] = ()
    """Where a stage may begin at the earliest, by the number of layers up to its last; empty: anywhere.

    With these there are as many devices as stages."""
    earliest_of: tuple[int, ...] = ()
    """Which of them holds, of every device."""

    @property
    def num_devices(self) -> int:
        """Devices, of which a split may leave some out."""
        return len(self.kind_of)

    def sums(self, device: int) -> Sums:
        """Of a device."""
        return self.kinds[self.kind_of[device]]


class _Reached(NamedTuple):
    """The least sums of some stages, the last of them on one device."""

    sums: Floats
    """By the number of layers covered, from the stage's first on."""
    before: Floats
    """Sum before the last stage, its cut included, less what its first layer starts at; by that layer."""
    previous: Integers | int
    """Device of the stage before, by the first layer; one where there is no choice."""


class ArraySearch:
    """The splits whose bottleneck is at most a bound."""

    def __init__(self, problem: ArrayProblem, bound: float, *, has_once: bool = True) -> None:
        self.problem = problem
        self.bound = bound * SLACK
        self.has_once = has_once
        self._firsts = [_first_layers(sums, self.bound) for sums in problem.kinds]
        self._later_firsts: dict[tuple[int, int], Integers] = {}
        self._ends = np.arange(problem.num_layers + 1)

    @cached_property
    def next_bound(self) -> float:
        """No bottleneck lies between the bound and this: the smallest stage or cut that is above it."""
        found, ends = math.inf, self._ends[1:]
        for sums, firsts in zip(self.problem.kinds, self._firsts, strict=True):
            first = firsts[1:]
            has = first > 0
            found = min(found, float((sums.ends[ends[has]] - sums.starts[first[has] - 1]).min(initial=math.inf)))
        for cut_s in self._cuts():
            found = min(found, float(cut_s[cut_s > self.bound].min(initial=math.inf)))
        return found

    def _firsts_on(self, device: int) -> Integers:
        """For every number of layers covered the first layer of the longest last stage on a device."""
        kind = self.problem.kind_of[device]
        if not self.problem.earliest:
            return self._firsts[kind]
        key = kind, self.problem.earliest_of[device]
        if key not in self._later_firsts:
            self._later_firsts[key] = np.maximum(self._firsts[kind], self.problem.earliest[key[1]])
        return self._later_firsts[key]

    @cached_property
    def _firsts_alike(self) -> list[int]:
        """The devices that are the first of those alike."""
        return [device for device, first in enumerate(self.problem.first_alike) if device == first]

    def _cuts(self) -> list[Floats]:
        """The seconds of all cuts between two devices of which the one may follow the other."""
        problem, firsts = self.problem, self._firsts_alike
        spare = problem.num_devices - problem.num_stages
        found = {}
        for device in range(problem.num_devices - 1):
            since, until = bisect_right(firsts, device + 1), bisect_right(firsts, device + spare + 1)
            for following in (device + 1, *firsts[since:until]):
                cuts = problem.cuts(device, following)
                found[cuts.number] = cuts.seconds[1:-1]
        return list(found.values())

    def found(self) -> State:
        """The state of least sum; there is one."""
        state = self.best(SUM)
        assert state is not None, "a bound that a split meets admits that split"
        return state

    def best(self, criterion: Criterion) -> State | None:
        """The state of all stages with the least sum; None where no split keeps to the bound."""
        assert criterion == SUM, "the least bottleneck is found by trying bounds"
        return self._least_sum

    @cached_property
    def _least_sum(self) -> State | None:
        ranges = self._ranges()
        if ranges is None:
            return None
        reached: list[dict[int, _Reached]] = []
        for stage in range(self.problem.num_stages):
            before = reached[-1] if reached else {}
            devices = [stage] if self._is_path else self._devices(stage, before)
            reached.append({device: self._place(stage, device, ranges, before) for device in devices})
        last = min(reached[-1], key=lambda device: float(reached[-1][device].sums[-1]))
        sum_s = float(reached[-1][last].sums[-1])
        return self._traced(reached, ranges, last, sum_s) if math.isfinite(sum_s) else None

    @cached_property
    def _is_path(self) -> bool:
        """Whether every stage has one device that it can be on, that of its own number."""
        return self._firsts_alike == [0] or self.problem.num_devices == self.problem.num_stages

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
        first = np.minimum.reduce(self._firsts).tolist()
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
        sums, (low, high) = self.problem.sums(device), ranges[stage]
        first = self._firsts_on(device)[low : high + 1]
        if stage == 0:
            found = sums.ends[low : high + 1] - sums.starts[0]
            if self.has_once:
                found = found + [self.problem.once_s(device, end - 1) for end in range(low, high + 1)]
            start = np.array([-sums.starts[0]])
            return _Reached(np.where(first == 0, found, math.inf), start, -1)
        since, until = ranges[stage - 1]
        sum_s, previous = self._begin(device, since, until, before)
        sum_s = sum_s - sums.starts[since : until + 1]
        starts = np.maximum(first, since) - since
        stops = np.minimum(self._ends[low : high + 1], until + 1) - since
        return _Reached(sums.ends[low : high + 1] + window_minima(sum_s, starts, stops), sum_s, previous)

    def _begin(self, device: int, since: int, until: int, before: dict[int, _Reached]) -> tuple[Floats, Integers | int]:
        """The least sum before a stage on a device, its cut included, and the device of the stage before."""
        is_first = device == self.problem.first_alike[device]
        others = [other for other in before if other < device and (is_first or device == other + 1)]
        ways = [self._way(before[other].sums, self.problem.cuts(other, device), since, until) for other in others]
        if len(ways) == 1:
            return ways[0], others[0]
        best, previous = np.full(until + 1 - since, math.inf), np.full(until + 1 - since, -1, dtype=np.intp)
        for other, way in zip(others, ways, strict=True):
            is_better = way < best
            best = np.where(is_better, way, best)
            previous[is_better] = other
        return best, previous

    def _way(self, sum_s: Floats, cuts: Cuts, since: int, until: int) -> Floats:
        """The sums before a stage that follows one device over its cuts; infinite where the bound refuses a cut."""
        here = cuts.seconds[since : until + 1]
        way: Floats = sum_s + here
        return np.where(here <= self.bound, way, math.inf) if cuts.largest_s > self.bound else way

    def _traced(
        self, reached: list[dict[int, _Reached]], ranges: list[tuple[int, int]], device: int, sum_s: float
    ) -> State:
        """The stages that lead to the last state."""
        end, bottleneck_s, stages = self.problem.num_layers, 0.0, []
        for stage in range(self.problem.num_stages - 1, -1, -1):
            of, sums = reached[stage][device], self.problem.sums(device)
            since, until = ranges[stage - 1] if stage else (0, 0)
            start = max(int(self._firsts_on(device)[end]), since) - since
            begin = start + int(of.before[start : min(end, until + 1) - since].argmin())
            first = begin + since
            bottleneck_s = max(bottleneck_s, float(sums.ends[end] - sums.starts[first]))
            stages.append((device, first, end - 1))
            previous = of.previous if isinstance(of.previous, int) else int(of.previous[begin])
            if stage:
                bottleneck_s = max(bottleneck_s, float(self.problem.cuts(previous, device).seconds[first]))
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
