"""Memory over a lowered row, on cases computed by hand."""

from dataclasses import replace

import pytest

from partition.schedule import (
    Kind,
    ReplayCosts,
    find_memory_peak,
    generate,
    lower,
    memory_over_row,
    memory_peak,
    replay,
    uniform_costs,
)
from partition.schedule.actions import Schedule


def priced(schedule: Schedule, **tables: object) -> ReplayCosts:
    return replace(uniform_costs(schedule), **tables)  # type: ignore[arg-type]


def test_a_first_stage_keeps_its_send_buffer_until_the_next_send_and_the_last_until_the_step() -> None:
    """F keeps 10 and makes a buffer of 3; B frees the 10. Buffers go back at the next send and at the step."""
    schedule = lower(generate("gpipe", num_ranks=2, num_microbatches=2))
    costs = priced(
        schedule,
        net_bytes={Kind.F: ((13,), (0,)), Kind.B: ((-10,), (0,)), Kind.STEP: ((0,), (0,))},
        peak_bytes={Kind.F: ((15,), (0,)), Kind.B: ((4,), (0,)), Kind.STEP: ((7,), (0,))},
        send_hold_bytes={Kind.SEND_F: ((3,), (0,)), Kind.SEND_B: ((0,), (0,))},
        static_bytes=(100, 50),
    )
    held = {str(a): h for a, h in zip(schedule.rows[0], memory_over_row(schedule.rows[0], costs, 100), strict=True)}
    assert {name: after for name, (_, after) in held.items()} == {
        "0F0": 113,
        "0SEND_F0": 113,
        "0F1": 126,
        "0SEND_F1": 123,
        "0RECV_B0": 123,
        "0B0": 113,
        "0RECV_B1": 113,
        "0B1": 103,
        "0STEP": 100,
    }
    assert held["0F1"].highest_bytes == 113 + 15
    assert held["0STEP"].highest_bytes == 100 + 7
    assert find_memory_peak(schedule.rows[0], costs, 100) == (128, 2)
    assert replay(schedule, costs).peak_bytes == (128, 50)


def test_a_receive_takes_its_buffer_when_it_is_posted() -> None:
    schedule = lower(generate("gpipe", num_ranks=2, num_microbatches=1))
    costs = priced(
        schedule,
        net_bytes={Kind.RECV_F: ((0,), (5,)), Kind.F: ((0,), (2,)), Kind.B: ((0,), (-7,))},
        peak_bytes={Kind.RECV_F: ((0,), (5,)), Kind.F: ((0,), (2,)), Kind.B: ((0,), (1,))},
    )
    assert [held.after_bytes for held in memory_over_row(schedule.rows[1], costs, 0)] == [5, 7, 0, 0, 0]
    assert memory_peak(schedule.rows[1], costs, 0) == 8


def test_a_peak_that_no_action_exceeds_is_held_from_the_start() -> None:
    schedule = lower(generate("gpipe", num_ranks=1, num_microbatches=1))
    assert find_memory_peak(schedule.rows[0], uniform_costs(schedule), 42) == (42, -1)


def test_sizes_follow_the_class_of_the_microbatch() -> None:
    schedule = lower(generate("gpipe", num_ranks=1, num_microbatches=2))
    costs = replace(priced(schedule, net_bytes={Kind.F: ((8, 3),), Kind.B: ((-8, -3),)}), size_class=(0, 1))
    assert [held.after_bytes for held in memory_over_row(schedule.rows[0], costs, 0)] == [8, 11, 3, 0, 0]


@pytest.mark.parametrize("ranks", range(1, 9))
def test_microbatches_in_flight(ranks: int) -> None:
    """GPipe holds m (Huang et al. 2019); 1F1B at most p - r on rank r (Narayanan et al. 2019, section 3.2)."""
    for microbatches in (1, 3, 8, 20):
        for name in ("gpipe", "1f1b"):
            schedule = lower(generate(name, num_ranks=ranks, num_microbatches=microbatches))
            kept = {Kind.F: ((1,),) * ranks, Kind.B: ((-1,),) * ranks}
            peaks = replay(schedule, priced(schedule, net_bytes=kept)).peak_bytes
            flight = [microbatches if name == "gpipe" else ranks - rank for rank in range(ranks)]
            assert list(peaks) == [min(microbatches, value) for value in flight]
