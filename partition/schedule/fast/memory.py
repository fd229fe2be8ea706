"""Lowered rows as integer arrays, and the bytes that each rank holds over its row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from partition.schedule.actions import Kind
from partition.schedule.fast.coded import (
    CODED_KINDS,
    END,
    RECV_F,
    SEND_B,
    SEND_F,
    Coded,
    F,
    I,
    Indices,
    Integers,
    Routes,
    placement_of,
)
from partition.schedule.replay_costs import BytesTable, ReplayCosts

Bytes = npt.NDArray[np.int64]

_BLOCK = 64
"""rows summed together: enough to be fast, few enough to stay small"""


class RowWriter:
    """Writes lowered rows while ranks advance: computations, and after each tick the messages in rank order."""

    def __init__(self, coded: Coded, routes: Routes, receives_ahead: int) -> None:
        self.coded, self.routes, self.receives_ahead = coded, routes, receives_ahead
        computations = np.count_nonzero(coded.rows != END, axis=1)
        messages = _count_messages(coded, routes)
        self.width = int((computations + messages).max(initial=0)) + 1
        self.numbers = np.full(len(coded.rows) * self.width, END, dtype=np.int32)
        self.free = np.arange(len(coded.rows), dtype=np.intp) * self.width

    def compute(self, ranks: Indices, numbers: Indices) -> None:
        """Append one computation to each of these rows."""
        places = self.free.take(ranks)
        self.numbers[places] = numbers
        self.free[ranks] = places + 1

    def send(self, ranks: Indices, numbers: Indices, kind_stage: Indices) -> None:
        """Append a send to each of these rows and its receive to the row of its peer, in order of the senders."""
        count, stages = self.coded.num_microbatches, self.coded.total_stages
        microbatch = numbers - kind_stage * count
        is_forward = kind_stage < (F + 1) * stages
        send = np.where(is_forward, SEND_F, SEND_B) * stages + kind_stage % stages
        rows, entries = np.empty(2 * len(ranks), dtype=np.intp), np.empty(2 * len(ranks), dtype=np.intp)
        rows[::2], rows[1::2] = ranks, self.routes.peer.take(kind_stage)
        entries[::2], entries[1::2] = send * count, self.routes.receive.take(kind_stage) * count
        entries += np.repeat(microbatch, 2)
        places = self.free.take(rows) + _counts_before(rows)
        self.numbers[places] = entries
        np.maximum.at(self.free, rows, places + 1)

    def rows(self) -> Integers:
        """The rows, each padded at its end."""
        matrix: Integers = self.numbers.reshape(-1, self.width)
        return _post_ahead(matrix, self.coded, self.receives_ahead) if self.receives_ahead else matrix


def _counts_before(rows: Indices) -> Indices:
    """How often each entry stands earlier in the array."""
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows.take(order)
    steps = np.arange(len(rows))
    runs = np.where(sorted_rows != np.roll(sorted_rows, 1), steps, 0)
    counts = np.empty_like(order)
    counts[order] = steps - np.maximum.accumulate(runs)
    return counts


def _count_messages(coded: Coded, routes: Routes) -> Indices:
    """Sends and receives of each rank: one for each microbatch of each channel."""
    placement, ranks = placement_of(coded), len(coded.rows)
    backward = I * coded.total_stages
    sides = np.zeros(ranks, dtype=np.intp)
    for start in (0,) if coded.is_forward_only else (0, backward):
        here = slice(start, start + coded.total_stages)
        sending = routes.channel[here] >= 0
        sides += np.bincount(placement[sending], minlength=ranks)
        sides += np.bincount(routes.peer[here][sending], minlength=ranks)
    return sides * coded.num_microbatches


def _post_ahead(rows: Integers, coded: Coded, receives_ahead: int) -> Integers:
    """Move every receive before the computation that many places earlier in its row."""
    kind = rows // (coded.total_stages * coded.num_microbatches)
    is_computation = (kind < SEND_F) & (rows != END)
    before = np.cumsum(is_computation, axis=1)
    key = 2 * before - 1
    key = np.where(kind >= RECV_F, np.maximum(2 * (before - receives_ahead), 0), key)
    key[rows == END] = np.iinfo(key.dtype).max
    order = np.argsort(key, axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)


def peak_bytes_of(coded: Coded, rows: Integers, costs: ReplayCosts) -> tuple[int, ...]:
    """Most bytes that each rank holds over its lowered row, steps included."""
    ranks = coded.num_ranks
    static = np.asarray([costs.static_of(rank % ranks) for rank in range(len(rows))], dtype=np.int64)
    if not (costs.net_bytes or costs.peak_bytes or costs.send_hold_bytes):
        return tuple(static.tolist())
    net, peak = _bytes_tables(coded, costs)
    blocks = [
        _block_peaks(coded, costs, rows[first : first + _BLOCK], static[first : first + _BLOCK], net, peak)
        for first in range(0, len(rows), _BLOCK)
    ]
    most, held = (np.concatenate(parts).tolist() for parts in zip(*blocks, strict=True))
    return tuple(most if coded.is_forward_only else _after_steps(coded, costs, most, held))


def _bytes_tables(coded: Coded, costs: ReplayCosts) -> tuple[Bytes, Bytes]:
    """Change after and most during each action, [kind * stages + stage, class]; one class more, of nothing.

    A send changes by the buffer of the send before it on its channel, which is of the class looked up.
    """
    net = _table(coded, costs, costs.net_bytes) - _table(coded, costs, costs.send_hold_bytes)
    return net, _table(coded, costs, costs.peak_bytes)


def _table(coded: Coded, costs: ReplayCosts, tables: Mapping[Kind, BytesTable]) -> Bytes:
    classes = max(costs.size_class) + 1
    table = np.zeros((len(CODED_KINDS), coded.num_copies, coded.num_stages, classes + 1), dtype=np.int64)
    for code, kind in enumerate(CODED_KINDS):
        if kind in tables:
            table[code, ..., :classes] = np.asarray(tables[kind])[:, :classes]
    return table.reshape(-1, classes + 1)


def _block_peaks(
    coded: Coded, costs: ReplayCosts, rows: Integers, static: Bytes, net: Bytes, peak: Bytes
) -> tuple[Bytes, Bytes]:
    """Peak of each of a few rows, and what is held at its end; a row's end is an action of the empty class."""
    nothing = net.shape[1] - 1
    size_class = np.asarray(costs.size_class, dtype=np.int32)
    previous_class = np.concatenate([size_class[:0], [nothing], size_class[:-1]], dtype=np.int32)
    shown = np.maximum(rows, 0)
    kind_stage = shown // coded.num_microbatches
    microbatch = shown - kind_stage * coded.num_microbatches
    is_send = (kind_stage >= SEND_F * coded.total_stages) & (kind_stage < RECV_F * coded.total_stages)
    size = np.where(is_send, previous_class[microbatch], size_class[microbatch])
    size[rows == END] = nothing
    entry = kind_stage * (nothing + 1) + size
    change = net.reshape(-1)[entry]
    after = np.cumsum(change, axis=1)
    after += static[:, None]
    highest = after - change
    highest += peak.reshape(-1)[entry]
    highest[is_send] = 0
    return np.maximum(static, np.maximum(highest, after).max(axis=1)), after[:, -1]


def _after_steps(coded: Coded, costs: ReplayCosts, most: list[int], held: list[int]) -> list[int]:
    """Add the optimizer steps of all ranks: the first of a rank gives all its send buffers back."""
    own: list[list[int]] = [[] for _ in range(coded.num_ranks)]
    for stage, rank in enumerate(coded.placement):
        own[rank].append(stage)
    pending = [_pending_bytes(coded, costs, stages) for stages in own]
    for lane, current in enumerate(held):
        rank = lane % len(own)
        current -= pending[rank]
        for stage in own[rank]:
            peak = costs.peak_bytes[Kind.STEP][stage][0] if Kind.STEP in costs.peak_bytes else 0
            net = costs.net_bytes[Kind.STEP][stage][0] if Kind.STEP in costs.net_bytes else 0
            most[lane] = max(most[lane], current + peak, current + net)
            current += net
    return most


def _pending_bytes(coded: Coded, costs: ReplayCosts, stages: list[int]) -> int:
    """Bytes of the last send buffers of these stages."""
    size = costs.size_class[-1]
    pending = 0
    for stage in stages:
        for kind, neighbour in ((Kind.SEND_F, stage + 1), (Kind.SEND_B, stage - 1)):
            is_sent = 0 <= neighbour < coded.num_stages and coded.placement[neighbour] != coded.placement[stage]
            if is_sent and kind in costs.send_hold_bytes:
                pending += costs.send_hold_bytes[kind][stage][size]
    return pending
