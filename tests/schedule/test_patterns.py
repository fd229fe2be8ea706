"""Patterns of warm-up and delay: the known ones, and what improving them does."""

from dataclasses import replace

import pytest

from partition.schedule import Kind, generate, uniform_costs
from partition.schedule.batch import Problem, price
from partition.schedule.coded import END, encode
from partition.schedule.patterns import WHOLE, Habit, improve_pattern, rows_of, starting_patterns
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
