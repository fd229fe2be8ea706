"""The text form against the schedules that the installed torch prints for its own schedule classes."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable
from typing import Any

import pytest

from partition.errors import ScheduleError
from partition.schedule import Schedule, from_text, generate, to_text, validate
from partition.schedule.deadlock import Semantics, find_deadlock

SHAPES = [(2, 2), (2, 4), (3, 6), (4, 8), (4, 12), (8, 16)]
WITH_MESSAGES = ["Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble", "ZBVZeroBubble"]
COMPLETE = ["GPipe", *WITH_MESSAGES]
PAIRED = ["DualPipeV"]
INCOMPLETE = ["1F1B"]


def torch_module(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"torch.distributed.pipelining.{name}")


def printed(name: str, ranks: int, microbatches: int, *, has_messages: bool = False, **options: Any) -> str:
    """What torch prints, its empty cells left out."""
    visualizer = torch_module("_schedule_visualizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = visualizer.get_schedule_ops(name, ranks, microbatches, with_comms=has_messages, **options)
    return as_text(rows)


def as_text(rows: Iterable[Iterable[object]]) -> str:
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


def test_no_schedule_class_of_torch_is_left_out() -> None:
    schedules = torch_module("schedules")
    bases = ("PipelineScheduleSingle", "PipelineScheduleMulti")
    found = {
        name.removeprefix("Schedule")
        for name, made in vars(schedules).items()
        if inspect.isclass(made)
        and issubclass(made, schedules._PipelineSchedule)
        and not name.startswith("_")
        and name not in bases
    }
    assert found == {*COMPLETE, *PAIRED, *INCOMPLETE}


@pytest.mark.parametrize("has_messages", [False, True])
@pytest.mark.parametrize("name", ["Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble"])
def test_so_do_schedules_of_three_stages_a_rank(name: str, has_messages: bool) -> None:
    for ranks, microbatches in ((2, 4), (4, 8)):
        text = printed(name, ranks, microbatches, has_messages=has_messages, num_stages_per_rank=3)
        read = checked(text, is_order_required=name != "LoopedBFS")
        assert read.num_stages == 3 * ranks
        assert to_text(read, lowered=has_messages) == text


@pytest.mark.parametrize(("ranks", "microbatches"), SHAPES)
def test_gpipe_as_torch_lowers_it_round_trips_and_passes(ranks: int, microbatches: int) -> None:
    """The printer adds messages to schedules of several stages a rank only; the function behind it to any."""
    actions = torch_module("schedules")._Action
    rows = {
        rank: [actions.from_str(cell) for cell in line.split(",") if "REDUCE" not in cell]
        for rank, line in enumerate(printed("GPipe", ranks, microbatches).splitlines())
    }
    lowered = torch_module("schedules")._add_send_recv(rows, stage_to_rank=lambda stage: stage, num_stages=ranks)
    text = as_text(lowered[rank] for rank in range(ranks))
    assert to_text(checked(text), lowered=True) == text


def test_receives_put_off_until_their_use_need_buffered_sends_and_are_refused() -> None:
    """Torch can post each receive just before its use: then sends that wait for their receives wait in a circle."""
    options = inspect.signature(torch_module("_schedule_visualizer").get_schedule_ops).parameters
    if "defer_pp_recv" not in options:
        pytest.skip("this torch does not put receives off")
    text = printed("Interleaved1F1B", 2, 4, has_messages=True, defer_pp_recv=True)
    schedule = from_text(text)
    assert to_text(schedule, lowered=True) == text
    assert find_deadlock(schedule, Semantics.BUFFERED) is None
    with pytest.raises(ScheduleError, match=r"rank 0, position 11, 2SEND_F1: .*wait for one another"):
        validate(schedule)
