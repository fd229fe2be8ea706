"""Every schedule of a tiny pipeline, to hold searches and bounds against."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from partition.schedule.actions import Kind
from partition.schedule.auto.problem import Problem, Rows, price
from partition.schedule.fast.coded import KIND_CODE

SPLIT = ((Kind.F, Kind.I, Kind.W), (Kind.F, Kind.B))


def best_makespan_s(problem: Problem) -> float:
    """The shortest makespan of all rows that split all backwards of a rank or none; one stage a rank."""
    count = problem.num_microbatches
    rows = [
        [
            np.array(
                [(KIND_CODE[kind] * problem.num_stages + stage) * count + index for kind, index in order], np.int32
            )
            for kinds in SPLIT
            for order in _orders(kinds, count)
        ]
        for stage in range(problem.num_stages)
    ]
    candidates: list[Rows] = list(product(*rows))
    return float(price(candidates, problem).makespan_s.min())


def _orders(kinds: tuple[Kind, ...], count: int) -> Iterator[list[tuple[Kind, int]]]:
    """Every order in which each kind counts up and no microbatch's kind comes before the kind it needs."""

    def extend(taken: tuple[int, ...], row: list[tuple[Kind, int]]) -> Iterator[list[tuple[Kind, int]]]:
        if taken == (count,) * len(kinds):
            yield row
        for place, number in enumerate(taken):
            if number < (taken[place - 1] if place else count):
                after = (*taken[:place], number + 1, *taken[place + 1 :])
                yield from extend(after, [*row, (kinds[place], number)])

    return extend((0,) * len(kinds), [])
