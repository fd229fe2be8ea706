"""Lowering: literal rows, one global order of messages, steps at the end."""

import pytest

from partition.errors import ScheduleError
from partition.schedule import Action, Kind, Schedule, from_text, generate, lower, to_text
from partition.schedule.actions import MESSAGES
from partition.schedule.lowering import complete


def test_the_sender_places_the_receive_of_its_peer() -> None:
    lowered = lower(generate("1f1b", num_ranks=2, num_microbatches=2))
    assert to_text(lowered, lowered=True).splitlines() == [
        "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1",
        "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1",
    ]


def test_each_stage_steps_once_at_the_end_of_its_row() -> None:
    lowered = lower(from_text("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"))
    assert [str(row[-2]) + str(row[-1]) for row in lowered.rows] == ["0STEP3STEP", "1STEP2STEP"]


def test_stages_of_one_rank_exchange_without_messages() -> None:
    lowered = lower(from_text("0F0,1F0,1B0,0B0\n"))
    assert not any(action.kind in MESSAGES for action in lowered.rows[0])


def test_reductions_keep_their_place_and_cost_no_tick() -> None:
    lowered = lower(from_text("0F0,0B0,0REDUCE_GRAD\n1F0,1B0,1REDUCE_GRAD\n"))
    assert to_text(lowered, lowered=True).splitlines()[1] == "1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD"


def test_lowering_twice_is_refused() -> None:
    with pytest.raises(ScheduleError, match="lowered already"):
        lower(lower(generate("gpipe", num_ranks=2, num_microbatches=1)))


def test_computations_that_wait_for_one_another_are_refused_with_the_place() -> None:
    rows = ((Action(0, Kind.B, 0), Action(0, Kind.F, 0)), (Action(1, Kind.F, 0), Action(1, Kind.B, 0)))
    stuck = Schedule(name="stuck", num_stages=2, num_microbatches=1, placement=(0, 1), rows=rows)
    with pytest.raises(ScheduleError, match=r"rank 0, position 0, 0B0 waits(.|\n)*\[0B0\]"):
        lower(stuck)


def test_receives_may_be_posted_computations_ahead() -> None:
    lowered = lower(generate("gpipe", num_ranks=2, num_microbatches=3), receives_ahead=1)
    assert to_text(lowered, lowered=True).splitlines() == [
        "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0F2,0SEND_F2,0RECV_B1,0B0,0RECV_B2,0B1,0B2",
        "1RECV_F0,1RECV_F1,1F0,1RECV_F2,1F1,1F2,1B0,1SEND_B0,1B1,1SEND_B1,1B2,1SEND_B2",
    ]


def test_what_is_lowered_is_completed_with_the_steps_that_text_leaves_out() -> None:
    lowered = lower(generate("1f1b", num_ranks=2, num_microbatches=2))
    read = from_text(to_text(lowered, lowered=True))
    assert complete(read).rows == lowered.rows == complete(lowered).rows
    assert complete(generate("1f1b", num_ranks=2, num_microbatches=2)).rows == lowered.rows


def test_prediction_is_completed_without_steps() -> None:
    lowered = lower(generate("forward_only", num_ranks=2, num_microbatches=2))
    assert complete(lowered).rows == lowered.rows
