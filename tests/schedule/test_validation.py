"""Validation: what is sound passes, and everything else is named with rank, position and action."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.errors import ScheduleError
from partition.schedule import GENERATORS, Schedule, from_text, generate, lower, to_text, validate
from partition.schedule.deadlock import Semantics, find_deadlock
from partition.schedule.validation import has_accumulation_order

MADE = list(GENERATORS.items())
SOUND = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def refused(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        validate(from_text(text))


def runs_whatever_waits(name: str, ranks: int, stages_per_rank: int, microbatches: int) -> None:
    """One global order of messages lets a schedule run even where both sides of a message wait for one another."""
    stages = ranks * stages_per_rank
    lowered = lower(generate(name, num_ranks=ranks, num_stages=stages, num_microbatches=microbatches))
    validate(lowered)
    assert find_deadlock(lowered, Semantics.BLOCKING) is None


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize(("name", "stages_per_rank"), [(name, made.usual_stages_per_rank) for name, made in MADE])
def test_every_shape_is_complete_ordered_and_free_of_deadlock(name: str, stages_per_rank: int, ranks: int) -> None:
    for microbatches in range(1, 25):
        runs_whatever_waits(name, ranks, stages_per_rank, microbatches)


UNUSUAL = [
    (name, number)
    for name, made in MADE
    for number in (1, 2, 3)
    if made.is_any_number and number != made.usual_stages_per_rank
]


@pytest.mark.parametrize(("name", "stages_per_rank"), UNUSUAL)
def test_so_are_shapes_with_an_unusual_number_of_stages(name: str, stages_per_rank: int) -> None:
    for ranks, microbatches in ((1, 5), (2, 1), (2, 7), (3, 3), (4, 9), (5, 13), (8, 5), (8, 24)):
        runs_whatever_waits(name, ranks, stages_per_rank, microbatches)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize(("name", "stages_per_rank"), UNUSUAL)
def test_so_is_every_shape_with_an_unusual_number_of_stages(name: str, stages_per_rank: int, ranks: int) -> None:
    for microbatches in range(1, 25):
        runs_whatever_waits(name, ranks, stages_per_rank, microbatches)


@given(st.sampled_from(sorted(GENERATORS)), st.integers(1, 5), st.integers(1, 9), st.integers(0, 4))
def test_each_semantics_lets_every_schedule_run_however_early_receives_are_posted(
    name: str, ranks: int, microbatches: int, receives_ahead: int
) -> None:
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    lowered = lower(schedule, receives_ahead=receives_ahead)
    validate(lowered)
    sending = (Semantics.BUFFERED, Semantics.RENDEZVOUS, Semantics.FIFO)
    assert [find_deadlock(lowered, semantics) for semantics in sending] == [None] * 3


@given(st.data())
def test_every_lost_action_is_missed_by_name(data: st.DataObject) -> None:
    ranks, microbatches = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 8))
    schedule = lower(generate("1f1b", num_ranks=ranks, num_microbatches=microbatches))
    rank = data.draw(st.integers(0, ranks - 1))
    row = schedule.rows[rank]
    position = data.draw(st.integers(0, len(row) - 1))
    rows = list(schedule.rows)
    rows[rank] = row[:position] + row[position + 1 :]
    with pytest.raises(ScheduleError, match=str(row[position])):
        validate(replace(schedule, rows=tuple(rows)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n", r"rank 0, position 3, end of row: 0B1 is missing"),
        ("0F0,0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", "rank 0, position 1, 0F0: it stands at position 0 already"),
        ("0F0,0F1,0B1,0B0\n1F0,1B0,1F1,1B1\n", "rank 0, position 3, 0B0: .* increasing microbatch order, 1 came"),
        ("0F0,0F1,0I0,0B0,0B1\n1F0,1B0,1F1,1B1\n", "0I0: 0B0 is the full backward and holds 0I0"),
        ("0F0,0F1,0I0,0B1\n1F0,1B0,1F1,1B1\n", "rank 0, position 2, 0I0: 0W0 is missing"),
        ("0F0,0F1,0W0,0B1\n1F0,1B0,1F1,1B1\n", "rank 0, position 2, 0W0: 0I0 is missing"),
        ("0B0,0F0,0F1,0B1\n1F0,1B0,1F1,1B1\n", "rank 0, position 0, 0B0: 0B0 waits for 0F0: comes later"),
        ("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", "ranks wait for one another"),
    ],
)
def test_computation_that_cannot_be_right(text: str, message: str) -> None:
    validate(from_text(SOUND))
    refused(text, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "rank 0, position 0, 0F0: .* 0SEND_F0 is missing"),
        ("0F0,0SEND_F0,0RECV_B0,0B0\n1F0,1B0,1SEND_B0\n", "0SEND_F0: 1RECV_F0 is missing on rank 1"),
        ("0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "position 0, 0SEND_F0: it comes before 0F0"),
        ("0F0,0SEND_F0,0RECV_B0,0B0\n1F0,1RECV_F0,1B0,1SEND_B0\n", "position 0, 1F0: it comes before 1RECV_F0"),
        ("0F0,0SEND_F0,0RECV_B0,0B0,0SEND_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "0SEND_B0: no stage .* is fed"),
    ],
)
def test_messages_that_do_not_pair(text: str, message: str) -> None:
    refused(text, message)


CROSSED = "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n1RECV_F1,1F1,1RECV_F0,1F0,1B0,1SEND_B0,1B1,1SEND_B1\n"


def test_crossed_messages_run_only_where_sends_are_buffered() -> None:
    schedule = from_text(CROSSED)
    assert find_deadlock(schedule, Semantics.BUFFERED) is None
    rendezvous, fifo = (find_deadlock(schedule, kind) for kind in (Semantics.RENDEZVOUS, Semantics.FIFO))
    assert rendezvous is not None
    assert fifo is not None
    assert fifo == (1, 0, "the message that comes first is that of 0SEND_F0")
    refused(CROSSED, "a send waits for its receive to be posted")


def test_the_grid_is_drawn_with_the_place_marked() -> None:
    refused("0F0,0F1,0B1,0B0\n1F0,1B0,1F1,1B1\n", r"rank 0 +0F0 +0F1 +0B1 +\[0B0\]\nrank 1 +1F0")


def test_gradients_out_of_order_pass_where_order_is_not_required() -> None:
    validate(from_text("0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n"), is_order_required=False)


def test_the_last_row_of_the_printed_1f1b_of_torch_2_13_lacks_its_first_forward() -> None:
    good = to_text(generate("1f1b", num_ranks=4, num_microbatches=8)).splitlines()
    bad = [*good[:3], "3F1,3B0,3F2,3B1,3F3,3B2,3F4,3B3,3F5,3B4,3F6,3B5,3F7,3B6,3F8,3B7,3REDUCE_GRAD"]
    refused("\n".join(bad), "3F8: there are microbatches 0 to 7; 3F0 is missing")


def test_a_schedule_that_never_goes_back_must_say_so() -> None:
    refused("0F0\n1F0\n", "0B0 is missing")
    validate(from_text("0F0\n1F0\n", is_forward_only=True))


def test_work_after_the_step_is_refused() -> None:
    schedule: Schedule = lower(generate("1f1b", num_ranks=1, num_microbatches=2))
    row = schedule.rows[0]
    moved = replace(schedule, rows=((*row[:-2], row[-1], row[-2]),))
    with pytest.raises(ScheduleError, match="0B1: it comes after 0STEP"):
        validate(moved)


def test_the_place_is_told_to_programs_too() -> None:
    with pytest.raises(ScheduleError) as caught:
        validate(from_text("0F0,0F1,0B1,0B0\n1F0,1B0,1F1,1B1\n"))
    assert (caught.value.rank, caught.value.position, caught.value.action) == (0, 3, "0B0")


def test_whether_gradients_are_added_in_order_is_told() -> None:
    assert has_accumulation_order(from_text(SOUND))
    assert not has_accumulation_order(from_text("0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n"))
