"""All ranks of a coded schedule advanced together, tick by tick: lowering and clocks on integer arrays.

A tick is that of `partition.schedule.lowering`: every rank whose next computation has what it needs takes it.
What needs what is looked up by the number of a result:

    0 ........ S*M-1     forward of stage s, microbatch m           (S stages, M microbatches)
    S*M .... 2*S*M-1     gradient that stage s hands to stage s - 1
    2*S*M                nothing: there from the start
    2*S*M+1              never there: the end of a row
    2*S*M+2              nothing: not looked up
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from partition.schedule.actions import Kind
from partition.schedule.coded import KIND_CODE, Coded

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

F, I, B, W = (KIND_CODE[kind] for kind in (Kind.F, Kind.I, Kind.B, Kind.W))  # noqa: E741 - letters of the text form
SEND_F, SEND_B, RECV_F, RECV_B = (KIND_CODE[kind] for kind in (Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B))


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
    kind = np.append(np.repeat(np.arange(4), stages), 4)
    stage = np.append(np.tile(np.arange(stages) % coded.num_stages, 4), 0)
    is_backward, is_end = (kind == I) | (kind == B), kind == 4
    takes_forward, takes_gradient = (kind == F) & (stage > 0), is_backward & (stage < coded.num_stages - 1)
    to_gradient = total - kind * total
    return Needs(
        far_offset=_indices(np.where(takes_forward, -count, to_gradient + count)),
        far_constant=_indices(np.where(is_end, never, np.where(takes_forward | takes_gradient, -1, nothing))),
        own_offset=_indices(np.where(is_backward, -kind * total, to_gradient)),
        own_constant=_indices(np.where(is_backward | (kind == W), -1, nothing)),
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
    channel, peer, receive = (np.full(4 * stages, -1, dtype=np.intp) for _ in range(3))
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
    sender = np.tile(rank, 4)
    pairs, link = np.unique(sender * (rank.max() + 1) + peer, return_inverse=True)
    return Routes(channel=channel, peer=peer, link=link, receive=receive, num_links=len(pairs))
