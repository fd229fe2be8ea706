"""Schedules as integer arrays: one number for each action, one row of numbers for each rank.

    number = (kind * stages + stage) * microbatches + microbatch        kinds in the order of CODED_KINDS
                                                                        -1 after the end of a row

Several schedules can stand side by side in one array, as ranks and stages of their own: a replay that works on
all ranks at once then works on all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from partition.errors import ScheduleError
from partition.schedule.actions import COMPUTE, Action, Kind, Schedule
from partition.schedule.generators import outline
from partition.schedule.slots import Slot

Integers = npt.NDArray[np.int32]

CODED_KINDS = (Kind.F, Kind.I, Kind.B, Kind.W, Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B)
KIND_CODE = {kind: code for code, kind in enumerate(CODED_KINDS)}
END = -1
"""number after the end of a row"""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """The computations of one schedule, or of several side by side."""

    num_stages: int
    """of one schedule"""
    num_microbatches: int
    placement: tuple[int, ...]
    """rank of each stage of one schedule"""
    rows: Integers
    """numbers, [rank, position]; with k schedules, the ranks of the first, then those of the second, ..."""
    is_forward_only: bool = False

    @cached_property
    def num_ranks(self) -> int:
        """Ranks of one schedule."""
        return max(self.placement) + 1

    @cached_property
    def num_copies(self) -> int:
        """How many schedules stand side by side."""
        return len(self.rows) // self.num_ranks

    @cached_property
    def total_stages(self) -> int:
        """Stages of all schedules together."""
        return self.num_stages * self.num_copies


def encode(schedule: Schedule) -> Coded:
    """The computations of a schedule as numbers.

    Raises ScheduleError where a stage does not take its microbatches in increasing order: the arrays rely on it.
    """
    stages, count = schedule.num_stages, schedule.num_microbatches
    rows = []
    for rank, row in enumerate(schedule.rows):
        numbers = [(KIND_CODE[a.kind] * stages + a.stage) * count + a.microbatch for a in row if a.kind in COMPUTE]
        coded = np.array(numbers, dtype=np.int32)
        _check_increasing(schedule, rank, coded)
        rows.append(coded)
    return _pad(rows, stages, count, schedule.placement, schedule.is_forward_only)


def generate_coded(name: str, *, num_ranks: int, num_microbatches: int, num_stages: int | None = None) -> Coded:
    """As `generate`, without an object for each action: 8 million actions take 32 MiB."""
    made = outline(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=num_stages)
    stages = made.shape.num_stages
    rows = [_number_slots(made.row(rank), stages, num_microbatches) for rank in range(num_ranks)]
    return _pad(rows, stages, num_microbatches, made.placement, made.generator.is_forward_only)


def decode(numbers: Integers, num_stages: int, num_microbatches: int) -> tuple[Action, ...]:
    """The actions of one row of numbers."""
    kind_rows, microbatches = np.divmod(numbers[numbers != END], num_microbatches)
    kinds, stages = np.divmod(kind_rows, num_stages)
    columns = zip(kinds.tolist(), stages.tolist(), microbatches.tolist(), strict=True)
    return tuple(Action(stage, CODED_KINDS[kind], microbatch) for kind, stage, microbatch in columns)


def _number_slots(slots: Sequence[Slot], stages: int, count: int) -> Integers:
    """The k-th slot of a stage and kind is microbatch k; those beyond the last microbatch are left out."""
    codes = {slot: KIND_CODE[slot.kind] * stages + slot.stage for slot in set(slots)}
    kind_rows = np.fromiter(map(codes.__getitem__, slots), dtype=np.int32, count=len(slots))
    numbers = np.full(len(slots), END, dtype=np.int32)
    for code in codes.values():
        places = np.flatnonzero(kind_rows == code)[:count]
        numbers[places] = code * count + np.arange(len(places), dtype=np.int32)
    row: Integers = numbers[numbers != END]
    return row


def _pad(rows: list[Integers], stages: int, count: int, placement: tuple[int, ...], is_forward_only: bool) -> Coded:
    matrix = np.full((len(rows), max(map(len, rows), default=0) + 1), END, dtype=np.int32)
    for rank, row in enumerate(rows):
        matrix[rank, : len(row)] = row
    return Coded(
        num_stages=stages,
        num_microbatches=count,
        placement=placement,
        rows=matrix,
        is_forward_only=is_forward_only,
    )


def _check_increasing(schedule: Schedule, rank: int, numbers: Integers) -> None:
    order = np.argsort(numbers // schedule.num_microbatches, kind="stable")
    if np.any(np.diff(numbers[order]) <= 0):
        raise ScheduleError(f"schedule {schedule.name}: rank {rank} does not take microbatches in increasing order")
