"""Trades of neighbouring actions: what may be traded, and that trading never makes a schedule worse."""

from partition.schedule import Schedule, generate, uniform_costs, validate
from partition.schedule.batch import Problem, price
from partition.schedule.coded import END, decode, encode
from partition.schedule.moves import improve_rows
from tests.schedule.cases import uneven_case


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
