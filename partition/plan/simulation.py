"""A candidate's step replayed action by action, in time and to the byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from partition.costs import StageCost
from partition.costs.stage import rank_static_bytes
from partition.errors import PartitionError
from partition.plan.candidate import Candidate, rank_loads
from partition.plan.occupancy import action_effects
from partition.plan.search import Search
from partition.schedule import Kind, ReplayCosts, Schedule, replay_replicas
from partition.schedule.replay import with_peaks
from partition.schedule.replay_costs import BytesTable
from partition.schedule.simulation import Simulation

_HOLDING = (Kind.F, Kind.B, Kind.I, Kind.W, Kind.R, Kind.RECV_F, Kind.RECV_B)


def simulate_candidate(search: Search, candidate: Candidate) -> Simulation:
    """Replay one step of a candidate that has a layout, feasible or not; of several replicas, the one that ends last.

    Its makespan is the step that the candidate predicts, its peaks are those of its devices. Raises PartitionError
    where there is no layout, or one that only torch knows.
    """
    if not candidate.stages:
        raise PartitionError(f"{candidate.name}: cannot be laid out: {candidate.reason}")
    if candidate.sharding:
        raise PartitionError(
            f"{candidate.name}: torch's fully_shard orders its own actions; simulate another candidate"
        )
    layouts = search.layouts(candidate)
    costs = [search.costs_of(candidate, layout, replica) for replica, layout in enumerate(layouts)]
    replays = replay_replicas(
        [(layout.schedule, of) for layout, of in zip(layouts, costs, strict=True)],
        has_step_barrier=search.has_step_barrier,
    )
    last = max(range(len(replays)), key=lambda replica: (replays[replica].makespan_s, -replica))
    layout, plans = layouts[last], [plan for plan in candidate.stages if plan.replica_index == last]
    stages = [search.costs.stage(*plan.layers) for plan in plans]
    loads = rank_loads(plans)
    with_memory = with_bytes(costs[last], layout.schedule, stages, layout.distinct_sizes)
    return Simulation(
        schedule=layout.schedule,
        costs=with_memory,
        replay=with_peaks(replays[last], layout.schedule, with_memory),
        devices=tuple(load.device for load in loads),
        limits_bytes=tuple(load.limit_bytes for load in loads),
    )


class _Effect(NamedTuple):
    """Bytes held more after an action, and the most during it."""

    net_bytes: int
    peak_bytes: int


def with_bytes(
    costs: ReplayCosts, schedule: Schedule, stages: Sequence[StageCost], sizes: Sequence[int]
) -> ReplayCosts:
    """The costs with the bytes of every action of these stages, for microbatches of these sizes, class by class."""
    effects = [[_effects(schedule.placement, stages, index, rows) for rows in sizes] for index in range(len(stages))]

    def table(value: Callable[[StageCost, int], int]) -> BytesTable:
        return tuple(tuple(value(stage, rows) for rows in sizes) for stage in stages)

    kinds = (*_HOLDING, Kind.STEP)
    of_ranks = [[stages[index] for index in schedule.stages_of(rank)] for rank in range(schedule.num_ranks)]
    return replace(
        costs,
        net_bytes={kind: tuple(tuple(of[kind].net_bytes for of in row) for row in effects) for kind in kinds},
        peak_bytes={kind: tuple(tuple(of[kind].peak_bytes for of in row) for row in effects) for kind in kinds},
        send_hold_bytes={
            Kind.SEND_F: table(lambda stage, rows: _sent_bytes(stage, rows)),
            Kind.SEND_B: table(lambda stage, rows: stage.microbatch(rows).grad_input_buffer_bytes),
        },
        static_bytes=tuple(rank_static_bytes(of, schedule.num_microbatches).total() for of in of_ranks),
    )


def _effects(placement: Sequence[int], stages: Sequence[StageCost], index: int, rows: int) -> dict[Kind, _Effect]:
    """What the actions of a stage hold. What a stage of the same rank hands over is taken and given back with them."""
    cost = stages[index].microbatch(rows)
    plain = {
        kind: _Effect(of.net_bytes, of.peak_bytes)
        for kind, of in action_effects(cost, stages[index].step.memory).items()
    }
    if index > 0 and placement[index - 1] == placement[index]:
        plain[Kind.F] = _after(plain[Kind.RECV_F], _sent_bytes(stages[index - 1], rows), plain[Kind.F])
    if index + 1 < len(stages) and placement[index + 1] == placement[index]:
        left = stages[index + 1].microbatch(rows).grad_input_buffer_bytes
        for kind in (Kind.B, Kind.I):
            plain[kind] = _after(plain[Kind.RECV_B], left, plain[kind])
    return plain


def _after(taken: _Effect, given_bytes: int, action: _Effect) -> _Effect:
    """An action that first takes a buffer and gives another one back."""
    before = taken.net_bytes - given_bytes
    return _Effect(before + action.net_bytes, max(taken.peak_bytes, before + action.peak_bytes))


def _sent_bytes(stage: StageCost, rows: int) -> int:
    """The buffer that a forward message occupies besides what the stage keeps for its backward."""
    cost = stage.microbatch(rows)
    return 0 if cost.is_output_kept else cost.output_buffer_bytes
