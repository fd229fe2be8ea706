"""The optimal contiguous split of a chain of layers over devices in a given order.

    step       = sum of stage seconds + sum of cut seconds + (M - 1) * bottleneck
    bottleneck = the largest stage seconds or cut seconds

For a fixed bound on the bottleneck the sums are minimised by dynamic programming over (stages placed, device of the
last one, layers covered). The bound takes the values that occur, in increasing order from the smallest feasible one,
until (M - 1) * bound alone can no longer improve the step: the result is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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


def optimal_split(problem: SplitProblem) -> Split | None:
    """The split of least `step` that fits, the earliest cuts among equals; None where none fits."""
    bounds = _bounds(problem)
    unbounded = _least_sum(problem, math.inf)
    if unbounded is None:
        return None
    first = bisect_left(bounds, True, key=lambda bound: _least_sum(problem, bound) is not None)
    best: Split | None = None
    for bound in bounds[first:]:
        if best and unbounded[0] + (problem.num_microbatches - 1) * bound >= best.step_s:
            break
        state = _least_sum(problem, bound)
        if state is None:
            continue
        sum_s, bottleneck_s, segments = state
        step_s = sum_s + (problem.num_microbatches - 1) * bottleneck_s
        if best is None or step_s < best.step_s:
            best = Split(segments=segments, step_s=step_s, bottleneck_s=bottleneck_s)
    return best


def _bounds(problem: SplitProblem) -> list[float]:
    """Every value that a bottleneck can take, in increasing order."""
    values = set()
    for stage, device in _placements(problem):
        for first in range(problem.num_layers):
            values |= {problem.stage_s(stage, device, first, last) for last in range(first, problem.num_layers)}
    for device, following in _links(problem):
        values |= {problem.cut_s(device, following, layer) for layer in range(problem.num_layers - 1)}
    return sorted(value for value in values if value < math.inf)


def _placements(problem: SplitProblem) -> list[tuple[int, int]]:
    """The (stage, device) pairs that leave room for the stages before and after."""
    spare = 0 if problem.is_uniform else problem.num_devices - problem.num_stages
    return [(stage, stage + skip) for stage in range(problem.num_stages) for skip in range(spare + 1)]


def _links(problem: SplitProblem) -> list[tuple[int, int]]:
    if problem.is_uniform:
        return [(stage, stage + 1) for stage in range(problem.num_stages - 1)]
    return [(first, last) for last in range(problem.num_devices) for first in range(last)]


def _least_sum(problem: SplitProblem, bound: float) -> _State | None:
    """The least sum of stage and cut seconds with none of them above the bound."""
    states: dict[tuple[int, int], _State] = {(-1, 0): (0.0, 0.0, ())}
    for stage in range(problem.num_stages):
        states = _place(problem, stage, states, bound)
    complete = [state for (_, covered), state in states.items() if covered == problem.num_layers]
    return min(complete, default=None)


def _place(
    problem: SplitProblem, stage: int, states: dict[tuple[int, int], _State], bound: float
) -> dict[tuple[int, int], _State]:
    """Extend every state, keyed by (device of the last stage, layers covered), by one stage."""
    extended: dict[tuple[int, int], _State] = {}
    devices = [device for at, device in _placements(problem) if at == stage]
    for (previous, covered), (sum_so_far, bottleneck_so_far, segments) in states.items():
        for device in (device for device in devices if device > previous):
            cut_s = problem.cut_s(previous, device, covered - 1) if stage else 0.0
            if cut_s > bound:
                continue
            for last in _ends(problem, stage, covered):
                stage_s = problem.stage_s(stage, device, covered, last)
                if stage_s > bound or stage_s == math.inf:
                    continue
                sum_s = sum_so_far + stage_s + cut_s
                known = extended.get((device, last + 1))
                if known is None or sum_s < known[0]:
                    bottleneck_s = max(bottleneck_so_far, stage_s, cut_s)
                    extended[device, last + 1] = (sum_s, bottleneck_s, (*segments, Segment(device, covered, last)))
    return extended


def _ends(problem: SplitProblem, stage: int, first: int) -> range:
    """The last layers that a stage may have: the last stage takes all, the others leave a layer for each to come."""
    remaining = problem.num_stages - 1 - stage
    if remaining == 0:
        return range(problem.num_layers - 1, problem.num_layers)
    return range(first, problem.num_layers - remaining)
