"""List scheduling: complete rows on any placement, within memory, patience."""

import pytest

from partition.schedule import Schedule, generate, lower, replay, uniform_costs, validate
from partition.schedule.auto.listing import Policy, list_schedule
from partition.schedule.auto.problem import Rows
from partition.schedule.fast.coded import decode
from tests.schedule.cases import uneven_case


def decoded(rows: Rows, placement: tuple[int, ...], microbatches: int) -> Schedule:
    return Schedule(
        name="list",
        num_stages=len(placement),
        num_microbatches=microbatches,
        placement=placement,
        rows=tuple(decode(row, len(placement), microbatches) for row in rows),
    )


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(is_weight_first=True), Policy(is_split=False), Policy(patience=1.0)]
)
@pytest.mark.parametrize("placement", [(0,), (0, 1, 2), (0, 1, 1, 0), (0, 1, 0, 1), (1, 0, 0, 2)])
def test_rows_are_complete_and_run_on_any_placement(placement: tuple[int, ...], policy: Policy) -> None:
    made = generate("1f1b", num_ranks=max(placement) + 1, num_microbatches=5, placement=placement)
    rows = list_schedule(uniform_costs(made, send_s=0.25), placement, (), policy)
    assert rows is not None
    listed = decoded(rows, placement, 5)
    validate(listed)
    validate(lower(listed))


def test_a_rank_keeps_within_its_memory() -> None:
    for seed in range(8):
        case = uneven_case(seed)
        limits = case.twice_the_highest_peak()
        rows = list_schedule(case.costs, case.placement, limits, Policy(memory_share=0.8))
        assert rows is not None
        listed = lower(decoded(rows, case.placement, case.num_microbatches))
        peaks = replay(listed, case.costs).peak_bytes
        assert all(peak <= limit for peak, limit in zip(peaks, limits, strict=True))


def test_too_little_memory_ends_in_none() -> None:
    case = uneven_case(3)
    assert list_schedule(case.costs, case.placement, (10_001,) * case.num_ranks, Policy()) is None


def test_a_patient_rank_waits_for_the_backward_that_is_on_its_way() -> None:
    """The first rank is through with F2 at 3; I0 of the second, from 2 to 3.5, is half a forward away."""
    costs = uniform_costs(generate("1f1b", num_ranks=2, num_microbatches=4), input_grad_s=1.5)
    orders = []
    for patience in (0.4, 0.5):
        rows = list_schedule(costs, (0, 1), (), Policy(patience=patience))
        assert rows is not None
        orders.append(" ".join(map(str, decode(rows[0], 2, 4)[:5])))
    assert orders == ["0F0 0F1 0F2 0F3 0I0", "0F0 0F1 0F2 0I0 0F3"]
