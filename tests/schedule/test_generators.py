"""Generators: literal grids and refused shapes."""

import pytest

from partition.errors import ScheduleError
from partition.schedule import Action, Kind, generate


def grid(name: str, num_ranks: int, num_microbatches: int) -> list[str]:
    schedule = generate(name, num_ranks=num_ranks, num_microbatches=num_microbatches)
    return [" ".join(map(str, row)) for row in schedule.rows]


def test_gpipe_runs_all_forwards_then_all_backwards_in_increasing_order() -> None:
    assert grid("gpipe", 2, 3) == ["0F0 0F1 0F2 0B0 0B1 0B2", "1F0 1F1 1F2 1B0 1B1 1B2"]


def test_1f1b_fills_alternates_and_drains() -> None:
    assert grid("1f1b", 3, 4) == [
        "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3",
        "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
        "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3",
    ]


def test_1f1b_on_one_rank_is_the_sequence_of_one_device() -> None:
    assert grid("1f1b", 1, 3) == ["0F0 0B0 0F1 0B1 0F2 0B2"]


def test_1f1b_with_fewer_microbatches_than_stages() -> None:
    assert grid("1f1b", 4, 1) == ["0F0 0B0", "1F0 1B0", "2F0 2B0", "3F0 3B0"]


def test_actions_print_as_stage_kind_microbatch() -> None:
    assert [str(Action(2, Kind.F, 0)), str(Action(1, Kind.SEND_F, 3)), str(Action(0, Kind.STEP))] == [
        "2F0",
        "1SEND_F3",
        "0STEP",
    ]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ScheduleError, match=r"'1b1f' is not known; take one of gpipe, 1f1b"):
        generate("1b1f", num_ranks=2, num_microbatches=2)


@pytest.mark.parametrize(("ranks", "microbatches"), [(0, 4), (2, 0), (-1, 1)])
def test_absurd_sizes_are_refused(ranks: int, microbatches: int) -> None:
    with pytest.raises(ScheduleError, match="at least 1 is needed"):
        generate("gpipe", num_ranks=ranks, num_microbatches=microbatches)


def test_1f1b_refuses_several_stages_a_rank() -> None:
    with pytest.raises(ScheduleError, match="4 ranks need 4 stages, got 8"):
        generate("1f1b", num_ranks=4, num_stages=8, num_microbatches=8)
