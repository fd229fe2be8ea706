"""Schedules as integer arrays: one number for each action, one row of numbers for each rank.

    number = (kind * stages + stage) * microbatches + microbatch        kinds in the order of CODED_KINDS
                                                                        -1 after the end of a row

Several schedules can stand side by side in one array, as ranks and stages of their own: a replay that works on
all ranks at once then works on all of them at once.

All ranks are advanced together, tick by tick. A tick is that of `partition.schedule.lowering`: every rank whose next
computation has what it needs takes it. What needs what is looked up by the number of a result:

    0 ........ S*M-1     forward of stage s, microbatch m           (S stages, M microbatches)
    S*M .... 2*S*M-1     gradient that stage s hands to stage s - 1
    2*S*M                nothing: there from the start
    2*S*M+1              never there: the end of a row
    2*S*M+2              nothing: not looked up
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
from partition.schedule.rows import Slot

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

CODED_KINDS = (Kind.F, Kind.I, Kind.B, Kind.W, Kind.R, Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B)
KIND_CODE = {kind: code for code, kind in enumerate(CODED_KINDS)}
F, I, B, W, R = (KIND_CODE[kind] for kind in CODED_KINDS[:5])  # noqa: E741 - letters of the text form
NUM_COMPUTATIONS = 5
"""kinds of computations, which come first"""
SEND_F, SEND_B, RECV_F, RECV_B = (KIND_CODE[kind] for kind in (Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B))
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


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a computation needs and makes, as numbers of results: its own number plus an offset of its kind and stage.

    Indexed kind * stages + stage, with one entry more for the end of a row. Where no result is needed or made the
    offset is irrelevant and the constant, otherwise -1, is the number of the result.
    """

    far_offset: Indices
    """result of a neighbouring stage"""
    far_constant: Indices
    own_offset: Indices
    """result of the same stage"""
    own_constant: Indices
    makes_offset: Indices
    makes_constant: Indices
    num_results: int

    @property
    def done_at_start(self) -> Flags:
        """What is there before the first tick."""
        done = np.zeros(self.num_results, dtype=np.bool_)
        done[self.num_results - 3] = True
        return done


@dataclass(frozen=True, kw_only=True)
class Routes:
    """For each kind and stage of a computation, indexed kind * stages + stage: where its result is sent."""

    channel: Indices
    """direction * stages + stage, forward 0, backward 1; -1 where nothing is sent"""
    peer: Indices
    """rank that receives"""
    link: Indices
    """number of the ordered pair of ranks"""
    receive: Indices
    """kind * stages + stage of the receive"""
    num_links: int


def placement_of(coded: Coded) -> Indices:
    """Rank of each stage of all schedules."""
    ranks = np.asarray(coded.placement, dtype=np.intp)
    return np.concatenate([ranks + copy * coded.num_ranks for copy in range(coded.num_copies)])


def find_needs(coded: Coded) -> Needs:
    """Look up what each kind and stage needs and makes."""
    stages, count = coded.total_stages, coded.num_microbatches
    total = stages * count
    nothing, never, trash = 2 * total, 2 * total + 1, 2 * total + 2
    kind = np.append(np.repeat(np.arange(NUM_COMPUTATIONS), stages), NUM_COMPUTATIONS)
    stage = np.append(np.tile(np.arange(stages) % coded.num_stages, NUM_COMPUTATIONS), 0)
    is_backward, is_end = (kind == I) | (kind == B), kind == NUM_COMPUTATIONS
    follows_forward = is_backward | (kind == R)
    takes_forward, takes_gradient = (kind == F) & (stage > 0), is_backward & (stage < coded.num_stages - 1)
    to_gradient = total - kind * total
    return Needs(
        far_offset=_indices(np.where(takes_forward, -count, to_gradient + count)),
        far_constant=_indices(np.where(is_end, never, np.where(takes_forward | takes_gradient, -1, nothing))),
        own_offset=_indices(np.where(follows_forward, -kind * total, to_gradient)),
        own_constant=_indices(np.where(follows_forward | (kind == W), -1, nothing)),
        makes_offset=_indices(np.where(is_backward, to_gradient, 0)),
        makes_constant=_indices(np.where(is_backward | (kind == F), -1, trash)),
        num_results=2 * total + 3,
    )


def look_up(numbers: Indices, kind_stage: Indices, offset: Indices, constant: Indices) -> Indices:
    """Numbers of the results that these computations need or make."""
    fixed = constant.take(kind_stage)
    return np.where(fixed < 0, numbers + offset.take(kind_stage), fixed)


def _indices(values: npt.NDArray[np.integer]) -> Indices:
    return values.astype(np.intp)


def find_routes(coded: Coded) -> Routes:
    """Where the result of each kind and stage is sent."""
    stages, per_copy = coded.total_stages, coded.num_stages
    rank = placement_of(coded)
    stage = np.arange(stages)
    channel, peer, receive = (np.full(NUM_COMPUTATIONS * stages, -1, dtype=np.intp) for _ in range(3))
    after, before = np.minimum(stage + 1, stages - 1), np.maximum(stage - 1, 0)
    down = stage[(stage % per_copy < per_copy - 1) & (rank[after] != rank)]
    up = stage[(stage % per_copy > 0) & (rank[before] != rank)]
    for kind, sending, direction, step, arrives in (
        (F, down, 0, 1, RECV_F),
        (I, up, 1, -1, RECV_B),
        (B, up, 1, -1, RECV_B),
    ):
        channel[kind * stages + sending] = direction * stages + sending
        peer[kind * stages + sending] = rank[sending + step]
        receive[kind * stages + sending] = arrives * stages + sending + step
    sender = np.tile(rank, NUM_COMPUTATIONS)
    pairs, link = np.unique(sender * (rank.max() + 1) + peer, return_inverse=True)
    return Routes(channel=channel, peer=peer, link=link, receive=receive, num_links=len(pairs))
