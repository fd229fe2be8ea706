"""The search: never worse than a generator that fits, within memory, the same every time, near the best there is."""

from dataclasses import replace
from statistics import median

import pytest

from partition.errors import NothingFitsError, ScheduleError, ScheduleMemoryError
from partition.schedule import GENERATORS, Kind, ReplayCosts, generate, lower, replay, uniform_costs, validate
from partition.schedule.auto.problem import Problem
from partition.schedule.auto.search import Found, search
from partition.schedule.replay_costs import SecondsTable
from tests.schedule.auto.brute_force import best_makespan_s
from tests.schedule.cases import Case, uneven_case

ROUNDING = 1 + 1e-9


def best_generator_s(problem: Problem) -> float:
    """The shortest makespan of any generator on the placement of the problem that fits its limits."""
    found = [float("inf")]
    for name, made in GENERATORS.items():
        if made.is_forward_only or (made.usual_stages_per_rank != 1 and len(problem.placement) == problem.num_ranks):
            continue
        try:
            schedule = generate(
                name,
                num_ranks=problem.num_ranks,
                num_microbatches=problem.num_microbatches,
                placement=problem.placement,
            )
        except ScheduleError:
            continue
        result = replay(lower(schedule, receives_ahead=problem.receives_ahead), problem.costs)
        limits = problem.limits_bytes or result.peak_bytes
        if all(peak <= limit for peak, limit in zip(result.peak_bytes, limits, strict=True)):
            found.append(result.makespan_s)
    return min(found)


def checked(problem: Problem, found: Found) -> None:
    """What is claimed is what the replay says; the schedule is sound, fits, and is no worse than a generator."""
    validate(found.schedule)
    lowered = lower(found.schedule, receives_ahead=problem.receives_ahead)
    validate(lowered)
    result = replay(lowered, problem.costs)
    assert result.makespan_s == found.makespan_s
    limits = problem.limits_bytes or result.peak_bytes
    assert all(peak <= limit for peak, limit in zip(result.peak_bytes, limits, strict=True))
    assert found.lower_bound_s <= found.makespan_s * ROUNDING
    assert found.makespan_s <= best_generator_s(problem)


def excess_share(case: Case, found: Found) -> float:
    """Makespan less the busiest rank's work, as a share of 1F1B's."""
    return (found.makespan_s - found.busiest_rank_s) / (case.makespan_1f1b_s - found.busiest_rank_s)


@pytest.mark.parametrize("receives_ahead", [0, 1])
def test_a_few_uneven_cases(receives_ahead: int) -> None:
    shares = []
    for seed in range(8):
        case = uneven_case(seed)
        problem = Problem(
            costs=case.costs,
            placement=case.placement,
            limits_bytes=case.twice_the_highest_peak(),
            receives_ahead=receives_ahead,
        )
        found = search(problem, iterations=3, most_actions=100_000)
        checked(problem, found)
        shares.append(excess_share(case, found))
    assert median(shares) <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("limits", ["twice_each_peak", "twice_the_highest_peak"])
def test_two_hundred_uneven_cases(limits: str) -> None:
    """With memory for twice 1F1B's peak, rank by rank or on equal devices, the excess is at most half of 1F1B's."""
    shares = []
    for seed in range(200):
        case = uneven_case(seed)
        problem = Problem(costs=case.costs, placement=case.placement, limits_bytes=getattr(case, limits)())
        found = search(problem)
        checked(problem, found)
        shares.append(excess_share(case, found))
    assert median(shares) <= 0.5


@pytest.mark.parametrize("placement", [(0, 1, 1, 0), (0, 1, 0, 1), (0, 0, 1, 2, 1), (2, 1, 0)])
def test_any_placement(placement: tuple[int, ...]) -> None:
    made = generate("1f1b", num_ranks=max(placement) + 1, num_microbatches=5, placement=placement)
    problem = Problem(costs=uniform_costs(made, send_s=0.125), placement=placement)
    checked(problem, search(problem, iterations=3))


def test_the_same_question_has_the_same_answer() -> None:
    case = uneven_case(4)
    problem = Problem(costs=case.costs, placement=case.placement, limits_bytes=case.twice_each_peak())
    assert search(problem, iterations=3) == search(problem, iterations=3)


def test_the_best_of_all_schedules_is_found_on_tiny_pipelines() -> None:
    for seed in range(12):
        case = uneven_case(seed)
        costs = ReplayCosts(
            size_class=(0, 0),
            seconds={kind: table[:2] for kind, table in case.costs.seconds.items()},
            send_forward_s=case.costs.send_forward_s[:2],
            send_backward_s=case.costs.send_backward_s[:2],
        )
        problem = Problem(costs=costs, placement=(0, 1))
        assert search(problem).makespan_s <= best_makespan_s(problem) * ROUNDING


def test_a_found_optimum_has_no_gap() -> None:
    made = generate("1f1b", num_ranks=4, num_microbatches=12)
    found = search(Problem(costs=uniform_costs(made), placement=made.placement))
    assert (found.makespan_s, found.gap) == (39.0, 0.0)


def test_costs_of_whole_backwards_alone_give_whole_backwards() -> None:
    case = uneven_case(1)
    whole: dict[Kind, SecondsTable] = {kind: case.costs.seconds[kind] for kind in (Kind.F, Kind.B)}
    costs = replace(case.costs, seconds=whole)
    found = search(Problem(costs=costs, placement=case.placement), iterations=2)
    assert {action.kind for row in found.schedule.rows for action in row} == {Kind.F, Kind.B}


def test_what_fits_nowhere_is_refused_with_the_bytes() -> None:
    case = uneven_case(0)
    limits = (10_100,) * case.num_ranks
    message = r"fits .*10100.* bytes a rank: the smallest found needs (\d+) bytes more"
    with pytest.raises(ScheduleMemoryError, match=message) as caught:
        search(Problem(costs=case.costs, placement=case.placement, limits_bytes=limits), iterations=1)
    assert f"needs {caught.value.excess_bytes} bytes more" in str(caught.value)
    assert caught.value.exit_code == NothingFitsError.exit_code
    assert isinstance(caught.value, ScheduleError)


def test_a_bound_that_rounds_above_the_makespan_leaves_no_negative_gap() -> None:
    made = generate("gpipe", num_ranks=100, num_microbatches=1)
    found = search(Problem(costs=uniform_costs(made, send_s=0.1), placement=made.placement), iterations=0)
    assert 0.0 <= found.gap < 1e-9


def test_few_replays_are_enough_for_an_answer() -> None:
    case = uneven_case(0)
    problem = Problem(costs=case.costs, placement=case.placement)
    checked(problem, search(problem, most_actions=0))
