"""Replay: hand-computed clocks and published formulas."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from partition.errors import ScheduleError
from partition.schedule import Action, Kind, Replay, ReplayCosts, from_text, generate, lower, replay, uniform_costs


def replayed(name: str, ranks: int, microbatches: int, **costs: float) -> Replay:
    schedule = lower(generate(name, num_ranks=ranks, num_microbatches=microbatches))
    return replay(schedule, uniform_costs(schedule, **costs))


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("ranks", range(1, 9))
def test_idle_time_is_that_of_huang_2019_and_narayanan_2021(name: str, ranks: int) -> None:
    """(p-1)/(m+p-1) of the makespan: GPipe section 2.3; Narayanan et al. 2021 section 2.2.1 for the flushed 1F1B."""
    for microbatches in range(1, 25):
        if name == "1f1b" and microbatches < ranks:
            continue
        result = replayed(name, ranks, microbatches)
        assert result.makespan_s == 3.0 * (microbatches + ranks - 1)
        for rank in result.ranks:
            idle = (result.makespan_s - rank.busy_s) / result.makespan_s
            assert idle == pytest.approx((ranks - 1) / (microbatches + ranks - 1))


def test_1f1b_with_fewer_microbatches_than_ranks_takes_as_long_as_gpipe() -> None:
    for microbatches in range(1, 6):
        assert replayed("1f1b", 6, microbatches).makespan_s == replayed("gpipe", 6, microbatches).makespan_s


def test_bubble_is_span_less_busy_and_differs_from_idle_over_the_makespan() -> None:
    result = replayed("gpipe", 3, 2)
    assert [rank.bubble_s for rank in result.ranks] == [6.0, 3.0, 0.0]
    assert [rank.span_s for rank in result.ranks] == [12.0, 9.0, 6.0]


def test_one_message_by_hand() -> None:
    """Rank 0: F 0..1, posts; link 1..1.5; rank 1: F 1.5..2.5, B 2.5..4.5; link 4.5..5; rank 0: B 5..7."""
    schedule = lower(generate("1f1b", num_ranks=2, num_microbatches=1))
    result = replay(schedule, uniform_costs(schedule, send_s=0.5))
    shown = [[(str(timed.action), timed.start_s, timed.end_s) for timed in rank.timeline] for rank in result.ranks]
    assert shown == [
        [("0F0", 0, 1), ("0SEND_F0", 1, 1), ("0RECV_B0", 1, 1), ("0B0", 5, 7), ("0STEP", 7, 7)],
        [("1RECV_F0", 0, 0), ("1F0", 1.5, 2.5), ("1B0", 2.5, 4.5), ("1SEND_B0", 4.5, 4.5), ("1STEP", 5, 5)],
    ]
    assert [transfer[1:] for transfer in result.transfers] == [(0, 1, 1.0, 1.5), (1, 0, 4.5, 5.0)]


def test_a_send_waits_for_the_previous_one_of_its_channel() -> None:
    """F takes 1, the link 3: F0 moves 1..4, so F1, done at 2, is sent at 4; it moves 5..8, once 1F0 has ended."""
    schedule = lower(generate("gpipe", num_ranks=2, num_microbatches=3))
    result = replay(schedule, uniform_costs(schedule, send_s=3.0))
    starts = {str(timed.action): timed.start_s for rank in result.ranks for timed in rank.timeline}
    ends = {str(timed.action): timed.end_s for rank in result.ranks for timed in rank.timeline}
    assert (starts["0SEND_F1"], ends["0SEND_F1"], ends["0SEND_F2"]) == (2.0, 4.0, 8.0)
    assert (starts["0F2"], starts["1F1"], starts["1F2"]) == (4.0, 8.0, 12.0)


def test_a_link_carries_one_message_at_a_time_even_of_two_channels() -> None:
    """Stages 0 and 2 of rank 0 both feed rank 1: the second message waits for the link."""
    text = "0F0,2F0,2B0,0B0\n1F0,3F0,3B0,1B0\n"
    schedule = lower(from_text(text))
    costs = uniform_costs(schedule, forward_s=1.0, send_s=5.0)
    on_link = [t for t in replay(schedule, costs).transfers if (t.source, t.destination) == (0, 1)]
    assert all(first.end_s <= second.start_s for first, second in pairwise(on_link))


def test_a_transfer_waits_for_the_receive_to_be_posted() -> None:
    """Rank 1 posts its receive only after F1, which is slow: the message of F0 does not move before."""
    text = "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n"
    schedule = from_text(text)
    costs = uniform_costs(schedule, send_s=0.25)
    slow = replace(costs, seconds={**costs.seconds, Kind.F: ((1.0,), (10.0,))})
    second = next(t for t in replay(schedule, slow).transfers if str(t.send) == "0SEND_F1")
    assert (second.start_s, second.end_s) == (11.25, 11.5)


def test_the_first_step_waits_for_all_sends_of_its_rank() -> None:
    schedule = lower(generate("gpipe", num_ranks=2, num_microbatches=1))
    costs = replace(uniform_costs(schedule), send_backward_s=((9.0,), (9.0,)))
    step = replay(schedule, costs).ranks[1].timeline[-1]
    assert (str(step.action), step.start_s) == ("1STEP", 13.0)


def test_microbatches_of_two_sizes_and_a_step_with_a_duration() -> None:
    schedule = lower(generate("1f1b", num_ranks=1, num_microbatches=2))
    seconds: Mapping[Kind, tuple[tuple[float, ...], ...]] = {
        Kind.F: ((1.0, 0.5),),
        Kind.B: ((2.0, 1.0),),
        Kind.STEP: ((4.0,),),
    }
    costs = ReplayCosts(size_class=(0, 1), seconds=seconds, send_forward_s=((0.0,) * 2,), send_backward_s=((0.0,) * 2,))
    result = replay(schedule, costs)
    assert (result.makespan_s, result.ranks[0].busy_s, result.ranks[0].bubble_s) == (8.5, 8.5, 0.0)


def test_a_barrier_before_the_step_lets_all_ranks_step_together() -> None:
    schedule = lower(generate("1f1b", num_ranks=3, num_microbatches=3))
    costs = uniform_costs(schedule)
    assert [rank.timeline[-1].start_s for rank in replay(schedule, costs).ranks] == [15.0, 13.0, 11.0]
    together = replay(schedule, costs, has_step_barrier=True)
    assert [rank.timeline[-1].start_s for rank in together.ranks] == [15.0, 15.0, 15.0]


def test_rows_that_stand_still_are_refused_with_the_place() -> None:
    text = "0F0,0RECV_B0,0B0,0SEND_F0\n1RECV_F0,1F0,1B0,1SEND_B0\n"
    schedule = from_text(text)
    with pytest.raises(ScheduleError, match=r"rank 0, position 2, 0B0 waits for 1SEND_B0"):
        replay(schedule, uniform_costs(schedule))


def test_actions_are_plain_tuples() -> None:
    assert Action(0, Kind.F, 1) == (0, "F", 1)


def test_schedules_are_made_and_replayed_without_numpy() -> None:
    """Importing it would take a good part of the second in which a plan must end."""
    code = "import sys, partition.schedule; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
