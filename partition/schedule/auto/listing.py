"""List scheduling: ranks take, as time passes, the most urgent action that is ready and fits their memory.

A rank that becomes free looks at its stages, latest first, and takes

    a backward whose gradient has arrived;  else
    a forward whose input has arrived, if its bytes and those of a backward fit here and at the receiver;  else
    a weight gradient                                       (or, by policy, weight gradients before forwards)

Look-ahead: if a backward will arrive before a forward or weight gradient is through, the rank rather waits for it,
provided that this costs no more than the policy's patience times the seconds of what it puts off.

The times are an estimate (links are never busy, receives always posted); the replay has the last word.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from partition.schedule.actions import Kind
from partition.schedule.auto.problem import Rows
from partition.schedule.fast.coded import KIND_CODE
from partition.schedule.replay_costs import BytesTable, ReplayCosts


@dataclass(frozen=True, kw_only=True)
class StageBytes:
    """Bytes of one stage and microbatch; send buffers count as given back at once."""

    receive_bytes: int
    """taken by a received input"""
    receive_gradient_bytes: int
    after_forward: int
    """change by F"""
    after_backward: int
    """change by I, or by B"""
    after_weight: int
    forward_bytes: int
    """most bytes that F takes"""
    backward_bytes: int
    """most bytes that a backward takes, with its received gradient"""

    @property
    def kept_bytes(self) -> int:
        """Held from F to the backward."""
        return self.receive_bytes + self.after_forward

    def arriving(self, direction: int) -> int:
        """Taken by a message: an input (direction 1) or a gradient (-1)."""
        return self.receive_bytes if direction > 0 else self.receive_gradient_bytes


def bytes_of_stages(costs: ReplayCosts, placement: tuple[int, ...], *, is_split: bool) -> list[StageBytes]:
    """Bytes of every stage."""
    return [_bytes_of(costs, placement, stage, is_split) for stage in range(len(placement))]


def _bytes_of(costs: ReplayCosts, placement: tuple[int, ...], stage: int, is_split: bool) -> StageBytes:
    has_before = stage > 0 and placement[stage - 1] != placement[stage]
    has_after = stage + 1 < len(placement) and placement[stage + 1] != placement[stage]
    backward = Kind.I if is_split else Kind.B
    hold_forward = _largest(costs.send_hold_bytes, Kind.SEND_F, stage) if has_after else 0
    hold_backward = _largest(costs.send_hold_bytes, Kind.SEND_B, stage) if has_before else 0
    after_backward = _largest(costs.net_bytes, backward, stage)
    gradient = _largest(costs.net_bytes, Kind.RECV_B, stage) if has_after else 0
    weight_peak = after_backward + _largest(costs.peak_bytes, Kind.W, stage) if is_split else 0
    return StageBytes(
        receive_bytes=_largest(costs.net_bytes, Kind.RECV_F, stage) if has_before else 0,
        receive_gradient_bytes=gradient,
        after_forward=_largest(costs.net_bytes, Kind.F, stage) - hold_forward,
        after_backward=after_backward - hold_backward,
        after_weight=_largest(costs.net_bytes, Kind.W, stage),
        forward_bytes=max(_largest(costs.peak_bytes, Kind.F, stage), _largest(costs.net_bytes, Kind.F, stage)),
        backward_bytes=gradient + max(0, _largest(costs.peak_bytes, backward, stage), weight_peak),
    )


def _largest(tables: Mapping[Kind, BytesTable], kind: Kind, stage: int) -> int:
    """The entry of the largest class, which is the one of largest absolute value."""
    return max(tables[kind][stage], key=abs) if kind in tables else 0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a rank chooses."""

    is_split: bool = True
    """backward as I and W rather than B"""
    is_weight_first: bool = False
    """weight gradients before forwards"""
    patience: float = 0.0
    """idle seconds allowed for a backward to come, in units of the action that would be taken instead"""
    memory_share: float = 1.0
    """share of the free bytes of each rank that is used"""


def list_schedule(
    costs: ReplayCosts, placement: tuple[int, ...], limits_bytes: tuple[int, ...], policy: Policy
) -> Rows | None:
    """Rows of numbers; None where the ranks come to a standstill for want of memory."""
    run = _Listing(costs, placement, limits_bytes, policy)
    while run.events:
        run.advance()
    total = len(costs.size_class) * len(placement) * (3 if policy.is_split else 2)
    if sum(map(len, run.rows)) < total:
        return None
    return tuple(np.array(row, dtype=np.int32) for row in run.rows)


class _Listing:
    """What was taken so far, what is on its way, and what each rank holds."""

    def __init__(
        self, costs: ReplayCosts, placement: tuple[int, ...], limits_bytes: tuple[int, ...], policy: Policy
    ) -> None:
        self.costs, self.placement, self.policy = costs, placement, policy
        self.count, self.stages = len(costs.size_class), len(placement)
        ranks = max(placement) + 1
        self.own = [[s for s in reversed(range(self.stages)) if placement[s] == rank] for rank in range(ranks)]
        self.bytes = bytes_of_stages(costs, placement, is_split=policy.is_split)
        self.free_bytes = [
            policy.memory_share * (limits_bytes[rank] - costs.static_of(rank)) if limits_bytes else float("inf")
            for rank in range(ranks)
        ]
        self.reserve = [max(self.bytes[stage].backward_bytes for stage in own) for own in self.own]
        self.rows: list[list[int]] = [[] for _ in range(ranks)]
        self.taken = {kind: [0] * self.stages for kind in (Kind.F, Kind.I, Kind.W)}
        self.inputs = [self.count if stage == 0 else 0 for stage in range(self.stages)]
        self.gradients = [0] * self.stages
        self.coming: list[list[float]] = [[] for _ in range(ranks)]
        self.busy_until = [0.0] * ranks
        self.events: list[tuple[float, int, int, int]] = [(0.0, 1, rank, 0) for rank in range(ranks)]

    def advance(self) -> None:
        """Deal with the next event: a result that arrives (kind 0, with stage and direction) or a rank that looks."""
        time, kind, where, direction = heapq.heappop(self.events)
        if kind == 0:
            (self.inputs if direction > 0 else self.gradients)[where] += 1
            rank = self.placement[where]
            if direction < 0 and time in self.coming[rank]:
                self.coming[rank].remove(time)
            heapq.heappush(self.events, (max(time, self.busy_until[rank]), 1, rank, 0))
        elif self.busy_until[where] <= time:
            self._look(where, time)

    def _look(self, rank: int, time: float) -> None:
        backward = self._ready_backward(rank)
        if backward is not None:
            self._take(Kind.I if self.policy.is_split else Kind.B, backward, time)
            return
        choices = [(Kind.F, self._ready_forward(rank)), (Kind.W, self._ready_weight(rank))]
        if self.policy.is_weight_first:
            choices.reverse()
        for kind, stage in choices:
            if stage is not None:
                expected = min(self.coming[rank], default=float("inf"))
                if expected - time > self.policy.patience * self._seconds(kind, stage):
                    self._take(kind, stage, time)
                return

    def _ready_backward(self, rank: int) -> int | None:
        ready = [s for s in self.own[rank] if self.taken[Kind.I][s] < min(self.gradients[s], self.taken[Kind.F][s])]
        return min(ready, key=lambda stage: self.taken[Kind.I][stage], default=None)

    def _ready_forward(self, rank: int) -> int | None:
        forward = self.taken[Kind.F]
        return next((s for s in self.own[rank] if forward[s] < self.inputs[s] and self._is_room(s)), None)

    def _ready_weight(self, rank: int) -> int | None:
        waiting = [s for s in self.own[rank] if self.policy.is_split and self.taken[Kind.W][s] < self.taken[Kind.I][s]]
        return max(waiting, key=lambda stage: self.taken[Kind.I][stage] - self.taken[Kind.W][stage], default=None)

    def _is_room(self, stage: int) -> bool:
        """Whether a forward leaves room for a backward, and for later stages of what was let in, on both ranks."""
        is_here = self.bytes[stage].forward_bytes + self._promised(stage) <= self._room(self.placement[stage])
        if stage + 1 == self.stages or self.placement[stage + 1] == self.placement[stage]:
            return is_here
        peer = self.placement[stage + 1]
        return is_here and self.bytes[stage + 1].receive_bytes <= self._room(peer)

    def _room(self, rank: int) -> float:
        return self.free_bytes[rank] - self.reserve[rank]

    def _promised(self, stage: int) -> int:
        """Bytes that microbatches let into a rank will need in its later stages."""
        forward = self.taken[Kind.F]
        later = [other for other in self.own[self.placement[stage]] if other > stage]
        return sum((forward[stage] + 1 - forward[other]) * self.bytes[other].kept_bytes for other in later)

    def _seconds(self, kind: Kind, stage: int) -> float:
        microbatch = self.taken[Kind.I if kind is Kind.B else kind][stage]
        return self.costs.seconds[kind][stage][self.costs.size_class[microbatch]]

    def _take(self, kind: Kind, stage: int, time: float) -> None:
        rank, counted = self.placement[stage], Kind.I if kind is Kind.B else kind
        microbatch = self.taken[counted][stage]
        end = time + self._seconds(kind, stage)
        self.rows[rank].append((KIND_CODE[kind] * self.stages + stage) * self.count + microbatch)
        self.taken[counted][stage] += 1
        self.busy_until[rank] = end
        self.free_bytes[rank] -= self._change(kind, stage)
        heapq.heappush(self.events, (end, 1, rank, 0))
        if kind is Kind.F:
            self._hand_over(stage, stage + 1, 1, end)
        elif kind is not Kind.W:
            self._hand_over(stage, stage - 1, -1, end)

    def _change(self, kind: Kind, stage: int) -> int:
        change: StageBytes = self.bytes[stage]
        return {Kind.F: change.after_forward, Kind.W: change.after_weight}.get(kind, change.after_backward)

    def _hand_over(self, stage: int, neighbour: int, direction: int, end: float) -> None:
        """Send a result on its way; the last stage's own forward is what its backward waits for."""
        if neighbour == self.stages:
            self.gradients[stage] += 1
        elif neighbour >= 0:
            is_same = self.placement[neighbour] == self.placement[stage]
            table = self.costs.send_forward_s if direction > 0 else self.costs.send_backward_s
            size = self.costs.size_class[self.taken[Kind.F if direction > 0 else Kind.I][stage] - 1]
            arrival = end if is_same else end + table[stage][size]
            peer = self.placement[neighbour]
            self.free_bytes[peer] -= 0 if is_same else self.bytes[neighbour].arriving(direction)
            if direction < 0:
                self.coming[peer].append(arrival)
            heapq.heappush(self.events, (arrival, 0, neighbour, direction))
