"""Where sums over replicas stand: by hand, and in every schedule once for each stage."""

from __future__ import annotations

import pytest

from partition.schedule import GENERATORS, Kind, generate, lower
from partition.schedule.reduction import with_reductions


def test_a_sum_follows_the_last_gradient_and_what_that_one_sends() -> None:
    reduced = with_reductions(lower(generate("1f1b", num_ranks=2, num_microbatches=2)))
    assert [" ".join(map(str, row[-4:])) for row in reduced.rows] == [
        "0RECV_B1 0B1 0REDUCE_GRAD 0STEP",
        "1B1 1SEND_B1 1REDUCE_GRAD 1STEP",
    ]


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_stage_has_one_and_nothing_else_moves(name: str) -> None:
    lowered = lower(generate(name, num_ranks=2, num_microbatches=4))
    reduced = with_reductions(lowered)
    for before, after in zip(lowered.rows, reduced.rows, strict=True):
        assert tuple(action for action in after if action.kind is not Kind.REDUCE_GRAD) == before
        sums = {action.stage: place for place, action in enumerate(after) if action.kind is Kind.REDUCE_GRAD}
        assert sorted(sums) == sorted(action.stage for action in before if action.kind is Kind.STEP)
        for stage, place in sums.items():
            assert not [one for one in after[place:] if one.stage == stage and one.kind in (Kind.B, Kind.W)]
