"""The lower bound: never above any schedule, met where nothing can be lost."""

import pytest

from partition.schedule import GENERATORS, generate, lower, replay, uniform_costs
from partition.schedule.auto.bounds import busiest_rank_s, lower_bound_s
from partition.schedule.auto.problem import Problem
from tests.schedule.auto.brute_force import best_makespan_s
from tests.schedule.cases import arbitrary_costs, uneven_case

ROUNDING = 1 + 1e-12


@pytest.mark.parametrize("name", [name for name, made in GENERATORS.items() if not made.is_forward_only])
def test_no_schedule_undercuts_the_bound_of_its_own_peaks(name: str) -> None:
    for seed in range(24):
        schedule = generate(name, num_ranks=1 + seed % 5, num_microbatches=1 + seed % 7)
        costs = arbitrary_costs(schedule, seed)
        result = replay(lower(schedule), costs)
        assert lower_bound_s(costs, schedule.placement, result.peak_bytes) <= result.makespan_s * ROUNDING


@pytest.mark.parametrize(("ranks", "microbatches", "seeds"), [(2, 2, 40), (2, 3, 8), (3, 2, 4)])
def test_the_bound_is_below_the_best_of_all_schedules(ranks: int, microbatches: int, seeds: int) -> None:
    for seed in range(seeds):
        schedule = generate("1f1b", num_ranks=ranks, num_microbatches=microbatches)
        problem = Problem(costs=arbitrary_costs(schedule, seed), placement=schedule.placement)
        assert lower_bound_s(problem.costs, problem.placement) <= best_makespan_s(problem) * ROUNDING


def test_zb_h2_meets_the_bound_on_equal_stages() -> None:
    schedule = generate("zb_h2", num_ranks=4, num_microbatches=8)
    costs = uniform_costs(schedule)
    assert lower_bound_s(costs, schedule.placement) == replay(lower(schedule), costs).makespan_s == 27.0
    assert busiest_rank_s(costs, schedule.placement) == 24.0


def test_little_memory_raises_the_bound() -> None:
    case = uneven_case(5)
    free = lower_bound_s(case.costs, case.placement)
    assert free <= lower_bound_s(case.costs, case.placement, case.twice_each_peak())
    one_in_flight = tuple(limit - (limit - 10_000) * 3 // 4 for limit in case.twice_each_peak())
    assert free < lower_bound_s(case.costs, case.placement, one_in_flight)
