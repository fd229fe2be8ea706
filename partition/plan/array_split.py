"""The dynamic program of `split.py` on arrays: a thousand stages of ten thousand layers take a second or two.

`array_search.py` finds the splits under a bound on the bottleneck; here the bounds are chosen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter

import numpy as np

from partition.plan.array_search import SLACK, ArrayProblem, ArraySearch
from partition.plan.layer_sums import Sums
from partition.plan.split import BOTTLENECK, SUM, Split, State, least_above, segments_of, step_of


def array_split(problem: ArrayProblem) -> Split:
    """The split of least `step`, of equals that of the least bottleneck.

    A split whose bottleneck is above that of `high` takes longer than the best one at the least bottleneck, whatever
    its sum is.
    """
    repeats = problem.num_microbatches - 1
    if repeats == 0:
        best = _state(problem, math.inf)
    else:
        low = tightest_search(problem)
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
    if len(problem.kinds) > 1 or problem.first_alike[-1] == problem.num_devices - 1 > problem.num_stages - 1:
        return ArraySearch(problem, math.inf, has_once=False).found()[SUM]
    (sums,) = problem.kinds
    cuts = [problem.cuts(device, device + 1) for device in range(problem.num_stages - 1)]
    counts, seconds = Counter(of.number for of in cuts), {of.number: of.seconds for of in cuts}
    added = sums.ends[1:-1] - sums.starts[1:]
    least_s = [float(np.sort(seconds[number][1:-1] + added)[:count].sum()) for number, count in counts.items()]
    return sums.whole_s + sum(least_s) - abs(sums.whole_s) * (SLACK - 1)


def tightest_search(problem: ArrayProblem) -> ArraySearch:
    """The splits of the least bottleneck of all, to rounding."""
    low = floor_of(problem.kinds, problem.num_stages)
    below = ArraySearch(problem, low)
    if below.best(SUM) is not None:
        return below
    rise, high = 1.01, math.inf
    while high == math.inf:
        state = ArraySearch(problem, low * rise).best(SUM)
        rise, high = rise**2, state[BOTTLENECK] if state else math.inf
    # No split keeps to `low`, one keeps to `high`: halve until nothing lies between them.
    while (above := below.next_bound) < high / SLACK:
        middle = ArraySearch(problem, (above + high) / 2)
        state = middle.best(SUM)
        below, high = (below, min(high, state[BOTTLENECK])) if state else (middle, high)
    return ArraySearch(problem, high)


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
    if len(kinds) == 1:
        (ends, starts), stages_left = kinds[0], num_stages
        while covered < last and stages_left:
            covered, stages_left = bisect_right(ends, starts[covered] + bound, covered) - 1, stages_left - 1
        return covered >= last
    for _ in range(num_stages):
        covered = max(bisect_right(ends, starts[covered] + bound, covered) - 1 for ends, starts in kinds)
        if covered >= last:
            return True
    return False
