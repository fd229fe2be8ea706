"""A schedule replayed on given costs, and the figures that a reader wants of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from partition.schedule.actions import Action, Kind, Schedule
from partition.schedule.lowering import complete
from partition.schedule.memory import memory_over_row
from partition.schedule.replay import RankReplay, Replay, replay
from partition.schedule.replay_costs import ReplayCosts


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A schedule in time and memory, with the names and limits of the devices where there are any."""

    schedule: Schedule
    """lowered, with its steps"""
    costs: ReplayCosts
    replay: Replay
    devices: tuple[str, ...] = ()
    """of each rank; empty where the schedule is not laid out on any"""
    limits_bytes: tuple[int, ...] = ()
    """of each rank; empty where memory is not limited"""
    is_in_bytes: bool = True
    """False where memory counts microbatches that a stage keeps, not bytes"""

    def rank_name(self, rank: int) -> str:
        """How a reader finds the rank: `rank 0`, or with its device `rank 0 simulated:0`."""
        return f"rank {rank} {self.devices[rank]}" if self.devices else f"rank {rank}"


def simulate(
    schedule: Schedule,
    costs: ReplayCosts,
    *,
    has_step_barrier: bool = False,
    devices: tuple[str, ...] = (),
    limits_bytes: tuple[int, ...] = (),
    is_in_bytes: bool = True,
) -> Simulation:
    """Replay a schedule that `validate` passes, lowered or not; raises ScheduleError as `lower` and `replay` do."""
    lowered = complete(schedule)
    return Simulation(
        schedule=lowered,
        costs=costs,
        replay=replay(lowered, costs, has_step_barrier=has_step_barrier),
        devices=devices,
        limits_bytes=limits_bytes,
        is_in_bytes=is_in_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class RankFigures:
    """What one rank's row comes to."""

    rank: int
    stages: tuple[int, ...]
    busy_s: float
    """seconds of its computations and steps"""
    first_s: float
    last_s: float
    bubble_s: float
    """idle seconds between its first computation and its last"""
    idle_s: float
    """idle seconds of the whole makespan"""
    most_in_flight: int
    """most microbatches of a stage between F and W (or B), over all its stages"""
    peak_bytes: int
    peak_action: str | None
    """the first action that holds the peak; None where it is held from the start"""


@dataclass(frozen=True, kw_only=True)
class ScheduleFigures:
    """What a replay comes to."""

    makespan_s: float
    bubble_fraction: float
    """idle rank seconds over all rank seconds of the makespan"""
    num_transfers: int
    transfer_s: float
    """seconds that links are busy, summed over links"""
    ranks: tuple[RankFigures, ...]


def figures(simulation: Simulation) -> ScheduleFigures:
    """The figures of a simulation."""
    result = simulation.replay
    ranks = tuple(_rank_figures(simulation, rank, one) for rank, one in enumerate(result.ranks))
    available_s, busy_s = result.makespan_s * len(ranks), sum(rank.busy_s for rank in ranks)
    return ScheduleFigures(
        makespan_s=result.makespan_s,
        bubble_fraction=max(0.0, 1.0 - busy_s / available_s) if available_s > 0 else 0.0,
        num_transfers=len(result.transfers),
        transfer_s=sum(transfer.end_s - transfer.start_s for transfer in result.transfers),
        ranks=ranks,
    )


def _rank_figures(simulation: Simulation, rank: int, result: RankReplay) -> RankFigures:
    row = simulation.schedule.rows[rank]
    return RankFigures(
        rank=rank,
        stages=simulation.schedule.stages_of(rank),
        busy_s=result.busy_s,
        first_s=result.first_s,
        last_s=result.last_s,
        bubble_s=result.bubble_s,
        idle_s=simulation.replay.makespan_s - result.busy_s,
        most_in_flight=_most_in_flight(row),
        peak_bytes=result.peak_bytes,
        peak_action=None if result.peak_position < 0 else str(row[result.peak_position]),
    )


def _most_in_flight(row: tuple[Action, ...]) -> int:
    current = most = 0
    for action in row:
        current += (action.kind is Kind.F) - (action.kind in (Kind.B, Kind.W))
        most = max(most, current)
    return most


class Sample(NamedTuple):
    """From this time on, until the next sample, a rank holds so many bytes."""

    time_s: float
    held_bytes: int


def memory_over_time(simulation: Simulation, rank: int) -> tuple[Sample, ...]:
    """What a rank holds over time: during each action the most that it needs, after it what is left.

    Several samples of one time are what actions that take none hold one after the other.
    """
    row, timeline = simulation.schedule.rows[rank], simulation.replay.ranks[rank].timeline
    static_bytes = simulation.costs.static_of(rank)
    samples = [Sample(0.0, static_bytes)]
    for timed, held in zip(timeline, memory_over_row(row, simulation.costs, static_bytes), strict=True):
        for sample in (Sample(timed.start_s, held.highest_bytes), Sample(timed.end_s, held.after_bytes)):
            if sample.held_bytes != samples[-1].held_bytes:
                samples.append(sample)
    return tuple(samples)
