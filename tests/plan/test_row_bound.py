"""The three parts of a row, by hand and by counting."""

from __future__ import annotations

from collections import Counter

import pytest

from partition.plan.row_bound import MOST_RANKS, part_seconds, row_parts
from partition.schedule import GENERATORS, Kind
from partition.schedule.rows import Slot


def test_by_hand() -> None:
    """1F1B, rank 0 of 2: F F | B F B B. H1, rank 1 of 2: F | I F I W F I | W W."""
    first, _ = row_parts("1f1b", 2, 2, 3)
    assert first.before == {Slot(0, Kind.F): 2}
    assert first.until == {Slot(0, Kind.F): 1, Slot(0, Kind.B): 3}
    assert not first.rest
    _, last = row_parts("zb_h1", 2, 2, 3)
    assert last.before == {Slot(1, Kind.F): 1}
    assert last.until == {Slot(1, Kind.I): 3, Slot(1, Kind.F): 2, Slot(1, Kind.W): 1}
    assert last.rest == {Slot(1, Kind.W): 2}
    assert part_seconds(last.until, {(1, Kind.F): 1.0, (1, Kind.I): 10.0, (1, Kind.W): 100.0}) == 132.0


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv"])
def test_every_action_is_in_one_part(schedule: str) -> None:
    for num_ranks in (2, 3, 9):
        stages = num_ranks * GENERATORS[schedule].usual_stages_per_rank
        found = row_parts(schedule, num_ranks, stages, 2 * num_ranks)
        assert len(found) == min(num_ranks, MOST_RANKS)
        for parts in found:
            total = Counter(parts.before) + Counter(parts.until) + Counter(parts.rest)
            assert set(total.values()) == {2 * num_ranks}
            assert all(slot.kind is Kind.F for slot in parts.before)
