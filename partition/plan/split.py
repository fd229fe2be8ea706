"""The optimal contiguous split of a chain of layers over devices in a given order.

    step       = sum of stage seconds + sum of cut seconds + (M - 1) * bottleneck + seconds paid once
    bottleneck = the largest stage seconds or cut seconds

For a fixed bound on the bottleneck the sums are minimised by dynamic programming over (stages placed, device of the
last one, layers covered). The bound starts at the least bottleneck of all splits, and goes on to the smallest value
that it refused, until least sum + (M - 1) * bound can no longer improve the step: the result is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

StageSeconds = Callable[[int, int, int, int], float]
"""Seconds of one microbatch on (stage index, device, first layer, last layer)."""


@dataclass(frozen=True, kw_only=True)
class SplitProblem:
    """A chain to cut into exactly `num_stages` non-empty stages."""

    num_layers: int
    num_stages: int
    num_devices: int
    num_microbatches: int
    stage_s: StageSeconds
    """Infinite where a stage does not fit its device."""
    cut_s: Callable[[int, int, int], float]
    """Seconds of one microbatch's two messages between (device, next device) for a cut after a layer."""
    once_s: StageSeconds
    """Seconds that a stage adds to the step once, whatever the number of microbatches."""
    is_uniform: bool
    """Devices and links are all alike: stage k may as well take device k."""


class Segment(NamedTuple):
    """One stage of a split: a device and its layers, inclusive."""

    device: int
    first_layer: int
    last_layer: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """The stages of a chain in order, with the sums of the formula above."""

    segments: tuple[Segment, ...]
    step_s: float
    bottleneck_s: float


_State = tuple[float, float, tuple[Segment, ...]]
"""Sum of seconds, bottleneck, segments; plain tuples, for there are many."""
_SUM: Final = 0
_BOTTLENECK: Final = 1


def optimal_split(problem: SplitProblem) -> Split | None:
    """The split of least `step` that fits, the earliest cuts among equals; None where none fits."""
    unbounded = _Search(problem, math.inf).best(_SUM)
    tightest = _Search(problem, math.inf).best(_BOTTLENECK)
    if unbounded is None or tightest is None:
        return None
    repeats, bound = problem.num_microbatches - 1, tightest[_BOTTLENECK]
    best = unbounded
    while unbounded[_SUM] + repeats * bound < best[_SUM] + repeats * best[_BOTTLENECK]:
        search = _Search(problem, bound)
        state = search.best(_SUM)
        assert state is not None, "a bound that a split meets admits that split"
        best = min(best, state, key=lambda one: one[_SUM] + repeats * one[_BOTTLENECK])
        bound = search.next_bound
    sum_s, bottleneck_s, segments = best
    return Split(segments=segments, step_s=sum_s + repeats * bottleneck_s, bottleneck_s=bottleneck_s)


class _Search:
    """The dynamic program under one bound; `next_bound` is the smallest value that it had to refuse."""

    def __init__(self, problem: SplitProblem, bound: float) -> None:
        self.problem = problem
        self.bound = bound
        self.next_bound = math.inf

    def best(self, criterion: Literal[0, 1]) -> _State | None:
        """The state of all stages with the least sum, or the least bottleneck, and nothing above the bound."""
        states: dict[tuple[int, int], _State] = {(-1, 0): (0.0, 0.0, ())}
        for stage in range(self.problem.num_stages):
            states = self._place(stage, states, criterion)
        complete = [state for (_, covered), state in states.items() if covered == self.problem.num_layers]
        return min(complete, key=lambda state: state[criterion], default=None)

    def _place(
        self, stage: int, states: dict[tuple[int, int], _State], criterion: Literal[0, 1]
    ) -> dict[tuple[int, int], _State]:
        """Extend every state, keyed by (device of the last stage, layers covered), by one stage."""
        problem, bound, extended = self.problem, self.bound, dict[tuple[int, int], _State]()
        refused = [self.next_bound]
        for (previous, covered), (sum_so_far, bottleneck_so_far, segments) in states.items():
            for device in self._devices(stage, previous):
                cut_s = problem.cut_s(previous, device, covered - 1) if stage else 0.0
                if cut_s > bound:
                    refused.append(cut_s)
                    continue
                for last in self._ends(stage, covered):
                    stage_s = problem.stage_s(stage, device, covered, last)
                    if stage_s > bound or stage_s == math.inf:
                        refused.append(stage_s)
                        continue
                    once_s = problem.once_s(stage, device, covered, last)
                    value = (sum_so_far + stage_s + cut_s + once_s, max(bottleneck_so_far, stage_s, cut_s))
                    known = extended.get((device, last + 1))
                    if known is None or value[criterion] < known[criterion]:
                        extended[device, last + 1] = (*value, (*segments, Segment(device, covered, last)))
        self.next_bound = min(refused)
        return extended

    def _devices(self, stage: int, previous: int) -> range:
        """The devices that leave room for the stages before and after; among equals the first."""
        if self.problem.is_uniform:
            return range(stage, stage + 1)
        spare = self.problem.num_devices - self.problem.num_stages
        return range(max(stage, previous + 1), stage + spare + 1)

    def _ends(self, stage: int, first: int) -> range:
        """The last layers that a stage may have: the last stage takes all, others leave a layer for each to come."""
        remaining = self.problem.num_stages - 1 - stage
        if remaining == 0:
            return range(self.problem.num_layers - 1, self.problem.num_layers)
        return range(first, self.problem.num_layers - remaining)
