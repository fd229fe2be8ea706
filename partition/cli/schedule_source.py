"""Where a schedule comes from: a file, a name, or a search."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from partition.cli.schedule_options import read_costs, read_limits
from partition.errors import PartitionError, ScheduleError, ScheduleMemoryError
from partition.schedule import GENERATORS, Kind, Schedule, generate, validate, with_recomputation
from partition.schedule.actions import COMPUTE
from partition.schedule.document import read_schedule
from partition.schedule.generators import usual_shape
from partition.schedule.validation import has_accumulation_order

if TYPE_CHECKING:
    from partition.schedule.auto import Found

AUTO = "auto"
MOST_LISTED = 10_000_000
"""Computations of the largest schedule that is written out as text."""
MOST_CHECKED = 1_000_000
"""Actions of the largest schedule that is checked or replayed one by one: half a minute."""
MOST_SEARCHED = 50_000
"""Stages times microbatches of the largest schedule that is searched for."""
MOST_STAGES_SEARCHED = 512
MOST_MICROBATCHES_SEARCHED = 10_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """A schedule, and the search that it comes from if it does."""

    schedule: Schedule
    found: Found | None = None
    is_bit_identical: bool = True
    """whether every stage adds its gradients in increasing microbatch order"""


def add_source(verb: argparse.ArgumentParser) -> None:
    """The options that name a schedule and its shape."""
    names = ", ".join([*GENERATORS, AUTO])
    verb.add_argument("name", nargs="?", metavar="NAME", help=f"{names}; {AUTO}: the best that a search finds")
    verb.add_argument("--ranks", type=int, metavar="P", help="number of ranks")
    verb.add_argument("--stages", type=int, metavar="S", help="number of stages (default: what the schedule takes)")
    verb.add_argument("--microbatches", type=int, metavar="M", help="number of microbatches")
    verb.add_argument("--placement", metavar="R,R,...", help="rank of each stage, such as 0,1,1,0")
    verb.add_argument(
        "--recompute", action="store_true", help="every stage keeps nothing and runs forward again before its backward"
    )
    add_file(verb)


def add_file(verb: argparse.ArgumentParser) -> None:
    """The options that name a schedule in a file."""
    verb.add_argument("--file", type=Path, metavar="F", help="a schedule in text form (CSV) or JSON")
    verb.add_argument("--forward-only", action="store_true", help="the file holds a schedule for prediction")


def make(options: argparse.Namespace, *, is_text: bool = False) -> Made:
    """The schedule of a file, of a name, or of a search; a larger one where only its text is wanted."""
    if (options.name is None) is (options.file is None):
        names = ", ".join([*GENERATORS, AUTO])
        raise PartitionError(f"give either --file F or the name of a schedule: {names}")
    if options.file is not None:
        if options.recompute:
            raise PartitionError("--recompute changes a named schedule; a file says with R what it recomputes")
        return read_file(options)
    if options.forward_only:
        raise PartitionError("--forward-only says what a file holds; take the schedule forward_only instead")
    for option in ("ranks", "microbatches"):
        if getattr(options, option) is None:
            raise PartitionError(f"schedule {options.name} needs --{option}")
    placement = _placement(options)
    if options.name == AUTO:
        if options.recompute:
            raise PartitionError("--recompute: a search does not place recomputations; take another schedule")
        return _search(options, placement)
    _check_size(options, is_text)
    schedule = generate(
        options.name,
        num_ranks=options.ranks,
        num_microbatches=options.microbatches,
        num_stages=options.stages,
        placement=placement,
    )
    return Made(schedule=with_recomputation(schedule, range(schedule.num_stages)) if options.recompute else schedule)


def read_file(options: argparse.Namespace) -> Made:
    """The schedule of --file, checked; gradients may be added in any order, as in schedules of others."""
    schedule = read_schedule(options.file, is_forward_only=options.forward_only)
    actions = sum(map(len, schedule.rows))
    if actions > MOST_CHECKED:
        raise ScheduleError(f"{options.file}: holds {actions} actions, at most {MOST_CHECKED} are checked; take fewer")
    for option, has in (
        ("ranks", schedule.num_ranks),
        ("stages", schedule.num_stages),
        ("microbatches", schedule.num_microbatches),
    ):
        asked = getattr(options, option, None)
        if asked is not None and asked != has:
            raise ScheduleError(f"{options.file}: holds {has} {option}, --{option} says {asked}; leave the option out")
    return checked(schedule)


def checked(schedule: Schedule) -> Made:
    """The schedule, if it is complete, in order and can run; raises ScheduleError with the place if it is not."""
    try:
        validate(schedule, is_order_required=False)
    except ScheduleError as error:
        kinds = {action.kind for row in schedule.rows for action in row if action.kind in COMPUTE}
        if kinds == {Kind.F} and not schedule.is_forward_only:
            hint = "no stage has a backward; if this is a schedule for prediction, add --forward-only"
            raise ScheduleError(f"{error}\n{hint}", rank=error.rank, position=error.position, action=error.action) \
                from None  # fmt: skip
        raise
    return Made(schedule=schedule, is_bit_identical=has_accumulation_order(schedule))


def _check_size(options: argparse.Namespace, is_text: bool) -> None:
    """Refuse what would take minutes or fill the memory of this machine; `generate` refuses sizes below 1."""
    shape = usual_shape(
        options.name, num_ranks=options.ranks, num_microbatches=options.microbatches, num_stages=options.stages
    )
    actions, most = GENERATORS[options.name].num_actions(shape), MOST_LISTED if is_text else MOST_CHECKED // 3
    if min(shape.num_ranks, shape.num_stages, shape.num_microbatches) > 0 and actions > most:
        done = "written" if is_text else f"checked or replayed, and {MOST_LISTED} written as csv"
        raise ScheduleError(
            f"schedule {options.name}: {shape.num_stages} stages and {shape.num_microbatches} microbatches make "
            f"{actions} actions, at most {most} are {done}; take fewer"
        )


def _placement(options: argparse.Namespace) -> tuple[int, ...] | None:
    if options.placement is None:
        return None
    parts = options.placement.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and len(part) <= 9 for part in parts):
        raise PartitionError(f"--placement {options.placement[:80]!r}: give the rank of each stage, such as 0,1,1,0")
    return tuple(int(part) for part in parts)


def _search(options: argparse.Namespace, placement: tuple[int, ...] | None) -> Made:
    """The best schedule found; with two stages a rank and no placement given, dealt out or in a V."""
    from partition.schedule.auto import Problem, search

    found = None
    for stages in _placements(options, placement):
        costs = read_costs(options, len(stages), options.microbatches)
        limits = tuple(min(limit, 2**62) for limit in read_limits(options, options.ranks))
        problem = Problem(costs=costs, placement=stages, limits_bytes=limits, has_step_barrier=options.step_barrier)
        try:
            other = search(problem)
        except ScheduleMemoryError as error:
            failure = error
            continue
        found = other if found is None or other.makespan_s < found.makespan_s else found
    if found is None:
        raise _in_units(failure, options)
    return Made(schedule=found.schedule, found=found)


def _in_units(error: ScheduleMemoryError, options: argparse.Namespace) -> ScheduleMemoryError:
    """The error of the search in the units that the limits were given in."""
    if options.kept_bytes is not None:
        return error
    return ScheduleMemoryError(
        f"--memory-limit {options.memory_limit}: no schedule found keeps so few microbatches; the smallest needs "
        f"room for {error.excess_bytes} more (between I and W a stage keeps two tensors for one)",
        excess_bytes=error.excess_bytes,
    )


def _placements(options: argparse.Namespace, placement: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    ranks, count = options.ranks, options.microbatches
    stages = len(placement) if placement else ranks if options.stages is None else options.stages
    if min(ranks, count, stages) < 1:
        raise ScheduleError(f"schedule {AUTO}: {ranks} ranks, {stages} stages, {count} microbatches: at least 1 each")
    if stages * count > MOST_SEARCHED or stages > MOST_STAGES_SEARCHED or count > MOST_MICROBATCHES_SEARCHED:
        raise ScheduleError(
            f"schedule {AUTO}: {stages} stages of {count} microbatches are too many to search: at most "
            f"{MOST_STAGES_SEARCHED} stages, {MOST_MICROBATCHES_SEARCHED} microbatches, and {MOST_SEARCHED} of both "
            "multiplied; take fewer, or a schedule by name"
        )
    if placement is not None:
        if set(placement) != set(range(ranks)) or options.stages not in (None, len(placement)):
            raise ScheduleError(
                f"--placement gives {len(placement)} stages ranks up to {max(placement)}; give each of "
                f"{options.stages or len(placement)} stages one of the ranks 0 to {ranks - 1}, every rank a stage"
            )
        return [placement]
    if stages % ranks:
        raise ScheduleError(f"schedule {AUTO}: {stages} stages for {ranks} ranks; take a multiple, or give --placement")
    looped = tuple(stage % ranks for stage in range(stages))
    return [looped, (*range(ranks), *reversed(range(ranks)))] if stages == 2 * ranks and ranks > 1 else [looped]
