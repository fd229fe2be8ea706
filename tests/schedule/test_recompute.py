"""R in a schedule: where it stands, what is refused, and that nothing else moves."""

from __future__ import annotations

import pytest

from partition.errors import ScheduleError
from partition.schedule import (
    GENERATORS,
    Kind,
    Schedule,
    draw,
    from_text,
    generate,
    lower,
    replay,
    to_text,
    uniform_costs,
    validate,
    with_recomputation,
)
from partition.schedule.replay_costs import stage_costs

ONE_BY_ONE = "0F0,0F1,0R0,0B0,0R1,0B1\n1F0,1B0,1F1,1B1\n"
WITH_BACKWARD = [name for name, made in GENERATORS.items() if not made.is_forward_only]


def refused(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        validate(from_text(text))


def test_it_stands_right_before_the_backward() -> None:
    schedule = with_recomputation(generate("1f1b", num_ranks=2, num_microbatches=2), [0])
    assert to_text(schedule) == ONE_BY_ONE
    assert schedule.recomputed_stages == {0}


@pytest.mark.parametrize("name", WITH_BACKWARD)
def test_every_schedule_with_it_is_sound_and_reads_back(name: str) -> None:
    plain = generate(name, num_ranks=3, num_microbatches=5)
    schedule = with_recomputation(plain, range(1, plain.num_stages))
    validate(schedule)
    validate(lower(schedule))
    assert from_text(to_text(schedule), name=name) == schedule
    rows = [tuple(action for action in row if action.kind is not Kind.R) for row in schedule.rows]
    assert tuple(rows) == plain.rows
    assert sum(action.kind is Kind.R for row in schedule.rows for action in row) == (plain.num_stages - 1) * 5


def test_a_lowered_schedule_keeps_its_messages_where_they_were() -> None:
    lowered = lower(generate("zb_h1", num_ranks=3, num_microbatches=4), receives_ahead=2)
    schedule = with_recomputation(lowered, [0, 2])
    validate(schedule)
    assert [[one for one in row if one.kind is not Kind.R] for row in schedule.rows] == list(map(list, lowered.rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ONE_BY_ONE.replace("0R1,", ""),
            r"rank 0, position 5, end of row: 0R1 is missing: the stage",
        ),
        (ONE_BY_ONE.replace("0R1,0B1", "0B1,0R1"), r"rank 0, position 5, 0R1: it comes after 0B1, which needs what"),
        (ONE_BY_ONE.replace("0F1,0R0", "0R1,0F1,0R0").replace("0R1,0B1", "0B1"), r"0R1: it comes before 0F1, which it"),
        (ONE_BY_ONE.replace("0R1,", "0R1,0R1,"), r"position 5, 0R1: it stands at position 4 already"),
    ],
)
def test_what_is_out_of_order_is_refused_with_its_place(text: str, message: str) -> None:
    validate(from_text(ONE_BY_ONE))
    refused(text, message)


def test_prediction_has_nothing_to_recompute_for() -> None:
    forward = generate("forward_only", num_ranks=2, num_microbatches=2)
    with pytest.raises(ScheduleError, match="forward_only has no backward to recompute for"):
        with_recomputation(forward, [0])
    with pytest.raises(ScheduleError, match="1f1b recomputes already"):
        with_recomputation(with_recomputation(generate("1f1b", num_ranks=1, num_microbatches=1), [0]), [0])
    with pytest.raises(ScheduleError, match="0R0: a forward-only schedule has no backward to recompute for"):
        validate(from_text("0F0,0R0\n", is_forward_only=True))


def step_s(schedule: Schedule) -> float:
    lowered = lower(schedule)
    return replay(lowered, uniform_costs(lowered)).makespan_s


def test_it_fills_the_time_in_which_the_gradient_is_awaited() -> None:
    """Of two ranks and two microbatches: 0R0 runs while 1B0 does, and only 0R1 takes time of its own."""
    plain = generate("1f1b", num_ranks=2, num_microbatches=2)
    assert step_s(plain) == 9.0
    assert step_s(with_recomputation(plain, [0])) == 9.0 + 0.0
    assert step_s(with_recomputation(plain, [0, 1])) == 11.0
    assert draw(with_recomputation(plain, [0])).splitlines()[0] == "rank 0  F0 F1 R0 .. B0 -- R1 B1 --"


def test_stages_that_recompute_keep_nothing_until_then() -> None:
    schedule = with_recomputation(generate("gpipe", num_ranks=1, num_microbatches=4), [0])
    one = {"forward_s": [1.0], "input_grad_s": [1.0], "weight_grad_s": [1.0], "send_s": [0.0], "kept_bytes": [10]}
    lowered = lower(schedule)
    recomputed = stage_costs(num_microbatches=4, recomputed=schedule.recomputed_stages, **one)  # type: ignore[arg-type]
    assert replay(lowered, recomputed).peak_bytes == (10,)
    assert replay(lowered, recomputed).makespan_s == 16.0
    plain = lower(generate("gpipe", num_ranks=1, num_microbatches=4))
    assert replay(plain, stage_costs(num_microbatches=4, **one)).peak_bytes == (40,)  # type: ignore[arg-type]
