"""Improvement: the known patterns, what may be traded, and that nothing gets worse."""

from dataclasses import replace

import pytest

from partition.schedule import Kind, Schedule, generate, uniform_costs, validate
from partition.schedule.auto.improvement import WHOLE, Habit, improve_pattern, improve_rows, rows_of, starting_patterns
from partition.schedule.auto.problem import Problem, price
from partition.schedule.fast.coded import END, decode, encode
from partition.schedule.replay_costs import SecondsTable
from tests.schedule.cases import uneven_case


@pytest.mark.parametrize(("place", "name"), [(0, "1f1b"), (2, "zb_h1"), (3, "zb_h2")])
def test_the_known_schedules_are_patterns(place: int, name: str) -> None:
    for ranks in range(1, 6):
        for microbatches in range(1, 8):
            schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
            problem = Problem(costs=uniform_costs(schedule), placement=schedule.placement)
            rows = rows_of(starting_patterns(problem)[place], problem)
            assert [row.tolist() for row in rows] == [row[row != END].tolist() for row in encode(schedule).rows]


def test_a_pattern_follows_its_stage_to_another_rank() -> None:
    schedule = generate("1f1b", num_ranks=3, num_microbatches=4, placement=(2, 0, 1))
    problem = Problem(costs=uniform_costs(schedule), placement=(2, 0, 1))
    rows = rows_of(starting_patterns(problem)[0], problem)
    assert [row.tolist() for row in rows] == [row[row != END].tolist() for row in encode(schedule).rows]


def test_improving_a_pattern_never_makes_it_worse_and_replays_no_more_than_allowed() -> None:
    case = uneven_case(7)
    problem = Problem(costs=case.costs, placement=case.placement, limits_bytes=case.twice_the_highest_peak())
    start = starting_patterns(problem)[0]
    before = price([rows_of(start, problem)], problem).makespan_s[0]
    assert improve_pattern(start, problem, iterations=5, most_replayed=1) == (start, before, 1)
    pattern, after, replayed = improve_pattern(start, problem, iterations=5, most_replayed=1000)
    assert after < before
    assert price([rows_of(pattern, problem)], problem).makespan_s[0] == after
    assert replayed <= 1000


def test_a_backward_without_costs_of_its_parts_stays_whole() -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=3)
    costs = uniform_costs(schedule)
    whole: dict[Kind, SecondsTable] = {kind: costs.seconds[kind] for kind in (Kind.F, Kind.B)}
    problem = Problem(costs=replace(costs, seconds=whole), placement=(0, 1))
    assert starting_patterns(problem) == [(Habit(1, WHOLE), Habit(0, WHOLE))]
    pattern, _, _ = improve_pattern(starting_patterns(problem)[0], problem, iterations=3, most_replayed=500)
    assert {habit.delay for habit in pattern} == {WHOLE}


def test_order_within_a_stage_kind_or_microbatch_is_never_traded() -> None:
    case = uneven_case(2)
    problem = Problem(costs=case.costs, placement=case.placement)
    made = generate("zb_h1", num_ranks=case.num_ranks, num_microbatches=case.num_microbatches)
    rows = tuple(row[row != END] for row in encode(made).rows)
    start = float(price([rows], problem).makespan_s[0])
    better, after, replayed = improve_rows(rows, start, problem, iterations=3, most_replayed=10_000)
    assert after < start
    assert float(price([better], problem).makespan_s[0]) == after
    assert 0 < replayed <= 10_000
    count, stages = case.num_microbatches, case.num_ranks
    validate(
        Schedule(
            name="traded",
            num_stages=stages,
            num_microbatches=count,
            placement=case.placement,
            rows=tuple(decode(row, stages, count) for row in better),
        )
    )


def test_nothing_is_traded_where_nothing_is_gained() -> None:
    made = generate("zb_h2", num_ranks=2, num_microbatches=4)
    problem = Problem(costs=uniform_costs(made), placement=made.placement)
    rows = tuple(row[row != END] for row in encode(made).rows)
    same, makespan_s, _ = improve_rows(rows, 13.0, problem, iterations=3, most_replayed=1000)
    assert makespan_s == 13.0
    assert all((a == b).all() for a, b in zip(same, rows, strict=True))
