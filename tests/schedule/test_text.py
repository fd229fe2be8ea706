"""The text form: round trips, the older dialect, and what is not a schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.errors import ScheduleError
from partition.schedule import GENERATORS, from_text, generate, lower, to_text

shapes = st.tuples(st.sampled_from(sorted(GENERATORS)), st.integers(1, 6), st.integers(1, 12))


@given(shapes, st.booleans())
def test_text_round_trips(shape: tuple[str, int, int], lowered: bool) -> None:
    name, ranks, microbatches = shape
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    text = to_text(schedule, lowered)
    forward_only = schedule.is_forward_only
    again = from_text(text, name=name, is_forward_only=forward_only)
    assert to_text(again, lowered) == text
    if not lowered:
        assert again == schedule


def test_compute_only_text_of_a_lowered_schedule_drops_messages_and_steps() -> None:
    schedule = generate("1f1b", num_ranks=3, num_microbatches=4)
    assert to_text(lower(schedule)) == to_text(schedule)


def test_empty_cells_carriage_returns_and_spaces_are_allowed() -> None:
    text = "0F0,,,0B0\r\n, 1F0 ,1B0,\r\n"
    assert to_text(from_text(text)) == "0F0,0B0\n1F0,1B0\n"


def test_the_stage_to_rank_map_is_read_off_the_rows() -> None:
    assert from_text("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n").placement == (0, 1, 1, 0)


def test_a_pair_is_read_as_its_two_actions() -> None:
    assert to_text(from_text("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n")) == "0F0,0F1,0B0,0B1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,2BW0\n", r"rank 0, cell 2: '2BW0' is the older dialect"),
        ("0F0,hello\n", "rank 0, cell 2: 'hello' is not an action"),
        ("0F0,0X0\n", "'0X0' has kind X; take one of F, B, I, W"),
        ("0F0,0B\n", "'0B' needs a microbatch"),
        ("0F0,0REDUCE_GRAD3\n", "carries no microbatch"),
        ("0F-1\n", "not an action"),
        ("0F0,0B0\n0F1,0B1\n", "rank 1, position 0, 0F1: stage 0 runs on rank 0 too"),
        ("0F0,2F0\n", "no row runs stage 1"),
        ("0F0,999999999F0\n", "at most 65536 stages"),
        ("", "holds no action"),
        ("\n,,\n", "holds no action"),
        ("0F0,0B0\n\n1F0,1B0\n", "rank 1 has no action"),
        ("\x00\x01binary", "is not an action"),
    ],
)
def test_what_is_not_a_schedule_is_refused_with_the_cell(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        from_text(text)
