"""Schedules priced side by side cost what each costs alone."""

import numpy as np
import pytest

from partition.schedule import generate, lower, replay
from partition.schedule.auto.problem import Problem, Rows, price
from partition.schedule.fast.coded import END, encode
from tests.schedule.cases import arbitrary_costs

NAMES = ("gpipe", "1f1b", "zb_h1", "zb_h2")


def rows_of(name: str) -> Rows:
    return tuple(row[row != END] for row in encode(generate(name, num_ranks=3, num_microbatches=5)).rows)


@pytest.mark.parametrize("receives_ahead", [0, 1])
def test_each_costs_what_it_costs_alone(receives_ahead: int) -> None:
    schedules = [generate(name, num_ranks=3, num_microbatches=5) for name in NAMES]
    costs = arbitrary_costs(schedules[0], 1)
    problem = Problem(costs=costs, placement=(0, 1, 2), receives_ahead=receives_ahead)
    alone = [replay(lower(made, receives_ahead=receives_ahead), costs).makespan_s for made in schedules]
    assert price([rows_of(name) for name in NAMES], problem).makespan_s.tolist() == alone


def test_what_exceeds_a_limit_or_stands_still_costs_infinitely_much() -> None:
    schedule = generate("1f1b", num_ranks=3, num_microbatches=5)
    costs = arbitrary_costs(schedule, 1)
    peaks = replay(lower(schedule), costs).peak_bytes
    good = rows_of("1f1b")
    stuck = (good[0][::-1].copy(), *good[1:])
    limits = tuple(peak - 7 * (rank == 1) for rank, peak in enumerate(peaks))
    fitting = price([good, stuck], Problem(costs=costs, placement=(0, 1, 2), limits_bytes=peaks))
    assert np.isfinite(fitting.makespan_s).tolist() == [True, False]
    exceeding = price([good], Problem(costs=costs, placement=(0, 1, 2), limits_bytes=limits))
    assert (exceeding.makespan_s.tolist(), exceeding.excess_bytes.tolist()) == ([np.inf], [7.0])
