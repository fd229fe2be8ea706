"""A schedule in time: when every action starts and ends, given what each costs.

Each rank has a clock. What the clock does at each action, with s = seconds of the action:

    F B I W   start = max(clock, arrival of the message that it needs); clock = end = start + s
    RECV      posts its buffer at clock; takes no time
    SEND      clock = max(clock, completion of the previous send of this stage and direction); posts there
    STEP      the first of a rank: start = max(clock, completion of all sends of the rank); clock = end = start + s

A message moves once both sides have posted. A link, one for each ordered pair of ranks, carries one message at a
time in the order in which its sends are posted:

    rank 0   |--F0--|--F1--|                     completion = start + seconds on the link
    0 -> 1          |=F0=|.|=F1=|                start = max(send posted, receive posted, link free)
    rank 1               |--F0--|--F1--|         arrival = completion

All of it is maxima and sums in a fixed order, so a runtime that keeps the same clocks gets the same floats.
"""

from __future__ import annotations

from dataclasses import dataclass

from partition.schedule.actions import COMPUTE, Kind, Schedule
from partition.schedule.clocks import Clocks, Timed, Transfer
from partition.schedule.memory import find_memory_peak
from partition.schedule.replay_costs import ReplayCosts


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
    clocks = Clocks(schedule, costs)
    if has_step_barrier:
        clocks.run(is_stopped_by_steps=True)
        clocks.meet_before_steps()
    clocks.run()
    ranks = tuple(_rank_replay(clocks, rank) for rank in range(schedule.num_ranks))
    makespan_s = max((timed.end_s for rank in ranks for timed in rank.timeline), default=0.0)
    return Replay(ranks=ranks, makespan_s=makespan_s, transfers=tuple(clocks.transfers))


def _rank_replay(clocks: Clocks, rank: int) -> RankReplay:
    timeline = tuple(clocks.timelines[rank])
    working = [timed for timed in timeline if timed.action.kind in COMPUTE or timed.action.kind is Kind.STEP]
    busy_s = 0.0
    for timed in working:
        busy_s += clocks.seconds_of(timed.action)
    peak = find_memory_peak(clocks.schedule.rows[rank], clocks.costs, clocks.costs.static_of(rank))
    return RankReplay(
        timeline=timeline,
        busy_s=busy_s,
        first_s=working[0].start_s if working else 0.0,
        last_s=working[-1].end_s if working else 0.0,
        peak_bytes=peak.peak_bytes,
        peak_position=peak.position,
    )
