"""A schedule in time: when every action starts and ends, given what each costs.

Each rank has a clock. What the clock does at each action, with s = seconds of the action:

    F B I W R start = max(clock, arrival of the message that it needs); clock = end = start + s
    RECV      clock = end = clock + s; posts its buffer there (s is 0 unless posting has been measured)
    SEND      start = max(clock, completion of the previous send of this stage and direction); posts at start + s
    REDUCE    posts the stage's gradients at clock; takes no time of the rank's own
    STEP      start = max(clock, completion of all sends of the rank, sum of the stage's gradients); end = start + s

How replicas wait for one another is in `replicas.py`.

A message moves once both sides have posted. A link, one for each ordered pair of ranks, carries one message at a
time in the order in which its sends are posted:

    rank 0   |--F0--|--F1--|                     completion = start + seconds on the link
    0 -> 1          |=F0=|.|=F1=|                start = max(send posted, receive posted, link free)
    rank 1               |--F0--|--F1--|         arrival = completion

All of it is maxima and sums in a fixed order, so a runtime that keeps the same clocks gets the same floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from partition.errors import ScheduleError
from partition.schedule.actions import (
    COMPUTE,
    RECEIVES,
    SENDS,
    Action,
    Kind,
    Schedule,
    matching_send,
)
from partition.schedule.drawing import draw_around
from partition.schedule.memory import find_memory_peak
from partition.schedule.replay_costs import ReplayCosts
from partition.schedule.replicas import run_together


@dataclass(frozen=True, kw_only=True)
class RankReplay:
    """One rank's row in time and memory."""

    timeline: tuple[Timed, ...]
    """every action, in row order; messages take no time here but that of waiting for the previous send"""
    busy_s: float
    """seconds of its computations and steps"""
    first_s: float
    """start of its first computation"""
    last_s: float
    """end of its last computation or step"""
    peak_bytes: int
    peak_position: int
    """first position of the row at which the peak is held; -1 where it is held from the start"""

    @property
    def span_s(self) -> float:
        """From the start of its first computation to the end of its last."""
        return self.last_s - self.first_s

    @property
    def bubble_s(self) -> float:
        """Idle seconds within its own span."""
        return self.span_s - self.busy_s


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A whole schedule in time and memory."""

    ranks: tuple[RankReplay, ...]
    makespan_s: float
    """end of the last action"""
    transfers: tuple[Transfer, ...]
    """in the order in which they were found, each link's in order of time"""

    @property
    def peak_bytes(self) -> tuple[int, ...]:
        """Most bytes that each rank holds."""
        return tuple(rank.peak_bytes for rank in self.ranks)


def replay(schedule: Schedule, costs: ReplayCosts, *, has_step_barrier: bool = False) -> Replay:
    """Replay a lowered schedule that `validate` passes.

    With `has_step_barrier` the first steps of all ranks start together, as they do where the norm of the whole
    gradient is taken before the step. Raises ScheduleError for rows that stand still.
    """
    return replay_replicas([(schedule, costs)], has_step_barrier=has_step_barrier)[0]


def replay_replicas(parts: Sequence[tuple[Schedule, ReplayCosts]], *, has_step_barrier: bool = False) -> list[Replay]:
    """Replay the lowered schedules of all replicas of a step, which wait for one another where they add gradients.

    The same as `replay` otherwise; all start at 0.
    """
    replicas = [Clocks(schedule, costs) for schedule, costs in parts]
    run_together(replicas, has_step_barrier=has_step_barrier)
    return [_replay_of(clocks) for clocks in replicas]


def _replay_of(clocks: Clocks) -> Replay:
    ranks = tuple(_rank_replay(clocks, rank) for rank in range(clocks.schedule.num_ranks))
    makespan_s = max((timed.end_s for rank in ranks for timed in rank.timeline), default=0.0)
    return Replay(ranks=ranks, makespan_s=makespan_s, transfers=tuple(clocks.transfers))


def with_peaks(replayed: Replay, schedule: Schedule, costs: ReplayCosts) -> Replay:
    """The same in time, with the bytes that costs give: memory follows the rows, not the clock."""
    peaks = [find_memory_peak(row, costs, costs.static_of(rank)) for rank, row in enumerate(schedule.rows)]
    ranks = (
        replace(rank, peak_bytes=peak.peak_bytes, peak_position=peak.position)
        for rank, peak in zip(replayed.ranks, peaks, strict=True)
    )
    return replace(replayed, ranks=tuple(ranks))


def _rank_replay(clocks: Clocks, rank: int) -> RankReplay:
    timeline = tuple(clocks.timelines[rank])
    working = [timed for timed in timeline if timed.action.kind in COMPUTE or timed.action.kind is Kind.STEP]
    busy_s = 0.0
    for timed in working:
        busy_s += clocks.costs.seconds_of(timed.action)
    static_bytes = clocks.costs.static_of(rank)
    has_bytes = bool(clocks.costs.net_bytes or clocks.costs.peak_bytes or clocks.costs.send_hold_bytes)
    row = clocks.schedule.rows[rank] if has_bytes else ()
    peak = find_memory_peak(row, clocks.costs, static_bytes)
    return RankReplay(
        timeline=timeline,
        busy_s=busy_s,
        first_s=working[0].start_s if working else 0.0,
        last_s=working[-1].end_s if working else 0.0,
        peak_bytes=peak.peak_bytes,
        peak_position=peak.position,
    )


class Transfer(NamedTuple):
    """One message on its link."""

    send: Action
    source: int
    destination: int
    start_s: float
    end_s: float


class Timed(NamedTuple):
    """One action of a row in time."""

    action: Action
    start_s: float
    end_s: float


class _Link:
    """Messages from one rank to another, in the order of their sends."""

    def __init__(self, source: int, destination: int) -> None:
        self.source, self.destination = source, destination
        self.queue: list[Action] = []
        self.moved = 0
        self.free_s = 0.0


class Clocks:
    """How far each rank and each link is."""

    def __init__(self, schedule: Schedule, costs: ReplayCosts) -> None:
        self.schedule = schedule
        self.costs = costs
        self.clock_s = [0.0] * schedule.num_ranks
        self.timelines: list[list[Timed]] = [[] for _ in schedule.rows]
        self.transfers: list[Transfer] = []
        self.reduce_posted_s: dict[int, float] = {}
        self.reduced_s: dict[int, float] = {}
        self._send_posted_s: dict[Action, float] = {}
        self._receive_posted_s: dict[Action, float] = {}
        self._completion_s: dict[Action, float] = {}
        self._latest_sends: list[dict[tuple[int, Kind], Action]] = [{} for _ in schedule.rows]
        self._links = self._find_links()
        self._waiting: dict[Action, list[int]] = {}
        self._ready: list[int] = []

    def run(self, *, is_stopped_by_steps: bool = False) -> None:
        """Advance every rank to the end of its row, or up to its first step.

        Raises ScheduleError if some rank stands still before that.
        """
        stopped: set[int] = set()
        self._ready.extend(range(self.schedule.num_ranks))
        while self._ready:
            rank = self._ready.pop()
            if self._advance(rank, is_stopped_by_steps):
                stopped.add(rank)
        for rank in range(self.schedule.num_ranks):
            if rank not in stopped:
                self._refuse(rank)

    def _advance(self, rank: int, is_stopped_by_steps: bool) -> bool:
        """Take actions of one rank until it must wait; whether it got where it should."""
        row, timeline = self.schedule.rows[rank], self.timelines[rank]
        while len(timeline) < len(row):
            action = row[len(timeline)]
            start = self.clock_s[rank]
            for send in self._awaited(rank, action):
                completion = self._completion_s.get(send)
                if completion is None:
                    self._waiting.setdefault(send, []).append(rank)
                    return False
                start = max(start, completion)
            if action.kind is Kind.STEP:
                start = max(start, self.reduced_s.get(action.stage, 0.0))
            if action.kind is Kind.STEP and is_stopped_by_steps:
                self.clock_s[rank] = start
                return True
            self._take(rank, action, start)
        return True

    def _awaited(self, rank: int, action: Action) -> list[Action]:
        """Messages that must have been transferred before the action starts."""
        if action.kind in COMPUTE:
            receive = self.schedule.consumes(action)
            return [] if receive is None else [matching_send(receive)]
        if action.kind in SENDS:
            previous = self._latest_sends[rank].get((action.stage, action.kind))
            return [] if previous is None else [previous]
        if action.kind is Kind.STEP:
            return list(self._latest_sends[rank].values())
        return []

    def _take(self, rank: int, action: Action, start_s: float) -> None:
        """Do one action whose waiting is over."""
        before_s = self.clock_s[rank]
        is_reduce = action.kind is Kind.REDUCE_GRAD
        self.clock_s[rank] = end_s = start_s + (0.0 if is_reduce else self.costs.seconds_of(action))
        if is_reduce:
            self.reduce_posted_s[action.stage] = end_s
        is_message = action.kind in SENDS or action.kind in RECEIVES
        self.timelines[rank].append(Timed(action, before_s if is_message else start_s, end_s))
        if action.kind in SENDS:
            self._latest_sends[rank][action.stage, action.kind] = action
            self._send_posted_s[action] = end_s
            self._links[action.stage, action.kind].queue.append(action)
            self._move(action)
        elif action.kind in RECEIVES:
            self._receive_posted_s[matching_send(action)] = end_s
            self._move(matching_send(action))

    def _find_links(self) -> dict[tuple[int, Kind], _Link]:
        """The link of each stage and direction; those between the same ranks share one."""
        links: dict[tuple[int, int], _Link] = {}
        found = {}
        for stage, source in enumerate(self.schedule.placement):
            for kind, neighbour in ((Kind.SEND_F, stage + 1), (Kind.SEND_B, stage - 1)):
                if 0 <= neighbour < self.schedule.num_stages:
                    ends = source, self.schedule.placement[neighbour]
                    found[stage, kind] = links.setdefault(ends, _Link(*ends))
        return found

    def _move(self, send: Action) -> None:
        """Transfer what both sides have posted on the link of a message, in order, and wake who waits for it."""
        link = self._links[send.stage, send.kind]
        while link.moved < len(link.queue) and link.queue[link.moved] in self._receive_posted_s:
            message = link.queue[link.moved]
            start_s = max(self._send_posted_s[message], self._receive_posted_s[message], link.free_s)
            link.free_s = self._completion_s[message] = start_s + self.costs.transfer_s(message)
            link.moved += 1
            self.transfers.append(Transfer(message, link.source, link.destination, start_s, link.free_s))
            self._ready.extend(self._waiting.pop(message, ()))

    def _refuse(self, rank: int) -> None:
        position = len(self.timelines[rank])
        action = self.schedule.rows[rank][position]
        waits = ", ".join(str(send) for send in self._awaited(rank, action) if send not in self._completion_s)
        raise ScheduleError(
            f"schedule {self.schedule.name}: rank {rank}, position {position}, {action} waits for {waits}, which is "
            f"never transferred; `validate` names the cause\n{draw_around(self.schedule, rank, position)}"
        )
