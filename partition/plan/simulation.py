"""A candidate's step replayed action by action, in time and to the byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from partition.costs import StageCost
from partition.errors import PartitionError
from partition.plan.candidate import Candidate
from partition.plan.estimate import Layout, replay_costs
from partition.plan.microbatches import microbatch_sizes
from partition.plan.occupancy import action_effects
from partition.plan.search import Search
from partition.plan.split import Segment
from partition.schedule import Kind, ReplayCosts, Schedule
from partition.schedule.replay_costs import BytesTable
from partition.schedule.simulation import Simulation, simulate

_HOLDING = (Kind.F, Kind.B, Kind.I, Kind.W, Kind.RECV_F, Kind.RECV_B)


def simulate_candidate(search: Search, candidate: Candidate, *, has_step_barrier: bool = False) -> Simulation:
    """Replay one step of a candidate that has a layout, feasible or not.

    Its makespan and peaks are those that the candidate predicts. Raises PartitionError where there is no layout.
    """
    if not candidate.stages:
        raise PartitionError(f"{candidate.name}: cannot be laid out: {candidate.reason}")
    sizes = microbatch_sizes(candidate.minibatch_size, candidate.num_microbatches)
    layout = Layout.of(candidate.schedule, candidate.num_stages, sizes)
    segments = [Segment(stage.device_index, stage.first_layer, stage.last_layer) for stage in candidate.stages]
    seconds = replay_costs(layout, segments, search.cluster, search.model)
    stages = [search.model.stage(segment.first_layer, segment.last_layer) for segment in segments]
    return simulate(
        layout.schedule,
        with_bytes(seconds, layout.schedule, stages, layout.distinct_sizes),
        has_step_barrier=has_step_barrier,
        devices=tuple(stage.device for stage in candidate.stages),
        limits_bytes=tuple(stage.limit_bytes for stage in candidate.stages),
    )


def with_bytes(
    costs: ReplayCosts, schedule: Schedule, stages: Sequence[StageCost], sizes: Sequence[int]
) -> ReplayCosts:
    """The costs with the bytes of every action of these stages, for microbatches of these sizes, class by class."""
    effects = [[action_effects(stage.microbatch(rows), stage.step.memory) for rows in sizes] for stage in stages]

    def table(value: Callable[[StageCost, int], int]) -> BytesTable:
        return tuple(tuple(value(stage, rows) for rows in sizes) for stage in stages)

    net = {kind: tuple(tuple(of[kind].net_bytes for of in row) for row in effects) for kind in (*_HOLDING, Kind.STEP)}
    peak = {kind: tuple(tuple(of[kind].peak_bytes for of in row) for row in effects) for kind in (*_HOLDING, Kind.STEP)}
    static_bytes = [0] * schedule.num_ranks
    for stage, rank in zip(stages, schedule.placement, strict=True):
        static_bytes[rank] += sum(stage.static_bytes(schedule.num_microbatches).values())
    return replace(
        costs,
        net_bytes=net,
        peak_bytes=peak,
        send_hold_bytes={
            Kind.SEND_F: table(lambda stage, rows: _sent_bytes(stage, rows)),
            Kind.SEND_B: table(lambda stage, rows: stage.microbatch(rows).grad_input_bytes),
        },
        static_bytes=tuple(static_bytes),
    )


def _sent_bytes(stage: StageCost, rows: int) -> int:
    """The buffer that a forward message occupies besides what the stage keeps for its backward."""
    cost = stage.microbatch(rows)
    return 0 if cost.is_output_kept else cost.output_bytes
