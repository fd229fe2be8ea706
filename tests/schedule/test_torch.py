"""The text form against the schedules that the installed torch prints for its own schedule classes."""

from __future__ import annotations

import re
import warnings

import pytest

from partition.errors import ScheduleError
from partition.schedule import Schedule, from_text, generate, to_text, validate

SHAPES = [(2, 2), (2, 4), (3, 6), (4, 8), (4, 12), (8, 16)]
WITH_MESSAGES = ["Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble", "ZBVZeroBubble"]
COMPLETE = ["GPipe", *WITH_MESSAGES]


def printed(name: str, ranks: int, microbatches: int, *, has_messages: bool = False) -> str:
    """What torch prints, its empty cells left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        visualizer = pytest.importorskip("torch.distributed.pipelining._schedule_visualizer")
        rows = visualizer.get_schedule_ops(name, ranks, microbatches, with_comms=has_messages)
    return "".join(",".join(str(action) for action in row if action is not None) + "\n" for row in rows)


def checked(text: str, *, is_order_required: bool = True) -> Schedule:
    schedule = from_text(text)
    validate(schedule, is_order_required=is_order_required)
    return schedule


@pytest.mark.parametrize(("ranks", "microbatches"), SHAPES)
@pytest.mark.parametrize("name", COMPLETE)
def test_complete_schedules_round_trip_and_pass(name: str, ranks: int, microbatches: int) -> None:
    """Looped breadth-first goes back in falling order, which changes bits: it passes only where that is allowed."""
    text = printed(name, ranks, microbatches)
    assert to_text(checked(text, is_order_required=name != "LoopedBFS")) == text
    if name == "LoopedBFS":
        with pytest.raises(ScheduleError, match="increasing microbatch order"):
            checked(text)


@pytest.mark.parametrize(("ranks", "microbatches"), SHAPES)
@pytest.mark.parametrize("name", WITH_MESSAGES)
def test_schedules_with_messages_round_trip_and_pass(name: str, ranks: int, microbatches: int) -> None:
    text = printed(name, ranks, microbatches, has_messages=True)
    assert to_text(checked(text, is_order_required=name != "LoopedBFS"), lowered=True) == text


@pytest.mark.parametrize(("ranks", "microbatches"), [(ranks, count) for ranks, count in SHAPES if count >= 2 * ranks])
@pytest.mark.parametrize("has_messages", [False, True])
def test_pairs_are_read_one_after_the_other(ranks: int, microbatches: int, has_messages: bool) -> None:
    """DualPipeV pairs a forward with a backward: read flat, it is complete and can run."""
    text = printed("DualPipeV", ranks, microbatches, has_messages=has_messages)
    flat = checked(text)
    assert to_text(flat, lowered=has_messages) == text.replace("(", "").replace(")OVERLAP_F_B", "").replace(";", ",")


def test_the_printed_1f1b_lacks_a_forward_and_is_refused_by_name() -> None:
    with pytest.raises(ScheduleError, match=r"rank 3, position \d+, 3F8: .*; 3F0 is missing"):
        checked(printed("1F1B", 4, 8))


@pytest.mark.parametrize(("ranks", "microbatches"), SHAPES)
@pytest.mark.parametrize(
    ("theirs", "ours"), [("GPipe", "gpipe"), ("Interleaved1F1B", "interleaved_1f1b"), ("ZBVZeroBubble", "zbv")]
)
def test_the_same_schedule_has_the_same_text(theirs: str, ours: str, ranks: int, microbatches: int) -> None:
    text = printed(theirs, ranks, microbatches)
    made = to_text(generate(ours, num_ranks=ranks, num_microbatches=microbatches))
    assert made == "".join(f"{re.sub(',[0-9]+REDUCE_GRAD', '', line)}\n" for line in text.splitlines())
