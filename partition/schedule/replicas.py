"""How replicas of a step wait for one another: where they add gradients, and where a norm is taken over all of them.

A sum over replicas begins when the last replica has posted it; those of one rank go one after another in row order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from partition.schedule.actions import Action, Kind, Schedule
from partition.schedule.replay_costs import ReplayCosts


class ReplicaClocks(Protocol):
    """How far the ranks of one replica are."""

    schedule: Schedule
    costs: ReplayCosts
    clock_s: list[float]
    """Of each rank."""
    reduce_posted_s: dict[int, float]
    """When each stage has posted its gradients."""
    reduced_s: dict[int, float]
    """When the sum of each stage is complete."""

    def run(self, *, is_stopped_by_steps: bool = False) -> None:
        """Advance every rank to the end of its row, or up to its first step."""


def run_together(replicas: Sequence[ReplicaClocks], *, has_step_barrier: bool) -> None:
    """Advance all replicas of a step to the end of their rows; all start at 0.

    With `has_step_barrier` the first steps of all ranks start together. Raises what `run` raises.
    """
    if has_step_barrier or any(clocks.schedule.has_reductions for clocks in replicas):
        for clocks in replicas:
            clocks.run(is_stopped_by_steps=True)
        _add_gradients(replicas)
    if has_step_barrier:
        _meet_before_steps(replicas)
    for clocks in replicas:
        clocks.run()


def _add_gradients(replicas: Sequence[ReplicaClocks]) -> None:
    """When the sum of every stage is complete, on all replicas alike."""
    lane_free_s: dict[int, float] = {}
    for stage in replicas[0].reduce_posted_s:
        rank, reduce = replicas[0].schedule.placement[stage], Action(stage, Kind.REDUCE_GRAD)
        posted_s = max(clocks.reduce_posted_s[stage] for clocks in replicas)
        seconds = max(clocks.costs.seconds_of(reduce) for clocks in replicas)
        lane_free_s[rank] = max(posted_s, lane_free_s.get(rank, 0.0)) + seconds
        for clocks in replicas:
            clocks.reduced_s[stage] = lane_free_s[rank]


def _meet_before_steps(replicas: Sequence[ReplicaClocks]) -> None:
    """Let every rank wait for the latest, as a norm over all gradients makes them."""
    latest_s = max(max(*clocks.clock_s, *clocks.reduced_s.values(), 0.0) for clocks in replicas)
    for clocks in replicas:
        clocks.clock_s = [latest_s] * len(clocks.clock_s)
