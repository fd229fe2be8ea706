"""Layouts of one schedule share what does not depend on the sizes of its microbatches."""

from __future__ import annotations

import pytest

from partition.plan.layout import RECEIVES_AHEAD, Layout
from partition.plan.occupancy import rank_moments
from partition.schedule import generate, lower
from partition.schedule.reduction import with_reductions


@pytest.mark.parametrize("is_reduced", [False, True])
@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (9, 9, 9, 9), (5, 5, 4, 4)])
def test_moments_are_those_of_its_own_rows(sizes: tuple[int, ...], is_reduced: bool) -> None:
    layout = Layout.of("zbv", 2, sizes, 4, is_reduced)
    lowered = lower(generate("zbv", num_ranks=2, num_microbatches=4, num_stages=4), receives_ahead=RECEIVES_AHEAD)
    own = with_reductions(lowered) if is_reduced else lowered
    assert layout.schedule.rows == own.rows
    assert layout.moments == tuple(rank_moments(row, layout.size_class, own) for row in own.rows)


def test_what_is_cut_short_or_computes_again_has_moments_of_its_own() -> None:
    layout = Layout.of("1f1b", 2, (4, 4, 4, 4), 2)
    assert layout.short(9).moments != layout.moments
    assert layout.recomputing_everywhere.moments != layout.moments
