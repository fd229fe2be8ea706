"""The figures of a step without timelines: those of the replay, bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from partition.errors import ScheduleError
from partition.schedule import GENERATORS, Action, Kind, ReplayCosts, Schedule, generate, lower, with_recomputation
from partition.schedule.reduction import with_reductions
from partition.schedule.replay import replay_replicas
from partition.schedule.step_time import step_times

NAMES = ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv")


def random_costs(schedule: Schedule, choose: random.Random) -> ReplayCosts:
    """Every stage and size its own seconds, postings and sums over replicas included."""
    classes = choose.choice([1, 2])

    def table(most_s: float) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(choose.uniform(0, most_s) for _ in range(classes)) for _ in range(schedule.num_stages))

    kinds = {kind: table(1.0) for kind in (Kind.F, Kind.B, Kind.I, Kind.W, Kind.R, Kind.STEP, Kind.REDUCE_GRAD)}
    if choose.random() < 0.5:
        kinds |= {kind: table(0.1) for kind in (Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B)}
    return ReplayCosts(
        size_class=tuple(choose.randrange(classes) for _ in range(schedule.num_microbatches)),
        seconds=kinds,
        send_forward_s=table(choose.choice([0.0, 0.3, 2.0])),
        send_backward_s=table(choose.choice([0.0, 0.3, 2.0])),
    )


def random_schedule(choose: random.Random) -> Schedule:
    """Any schedule of ours, lowered, with receives ahead or not, recomputing somewhere or not."""
    name, ranks = choose.choice(NAMES), choose.randint(1, 5)
    count = ranks * choose.randint(1, 3)
    stages = ranks * GENERATORS[name].usual_stages_per_rank
    made = generate(name, num_ranks=ranks, num_microbatches=count, num_stages=stages)
    lowered = lower(made, receives_ahead=choose.choice([0, 1, 2]))
    again = [stage for stage in range(stages) if choose.random() < 0.3]
    return with_recomputation(lowered, again) if again else lowered


@pytest.mark.parametrize("seed", range(120))
def test_makespan_and_busy_seconds_are_those_of_the_replay(seed: int) -> None:
    choose = random.Random(seed)
    schedule, num_replicas = random_schedule(choose), choose.choice([1, 1, 3])
    if num_replicas > 1:
        schedule = with_reductions(schedule)
    parts = [(schedule, random_costs(schedule, choose)) for _ in range(num_replicas)]
    has_step_barrier = choose.random() < 0.3
    replayed = replay_replicas(parts, has_step_barrier=has_step_barrier)
    found = step_times(parts, has_step_barrier=has_step_barrier)
    assert [of.makespan_s for of in found] == [of.makespan_s for of in replayed]
    assert [of.busy_s for of in found] == [tuple(rank.busy_s for rank in of.ranks) for of in replayed]


def test_rows_that_wait_for_one_another_are_refused() -> None:
    lowered = lower(generate("1f1b", num_ranks=2, num_microbatches=2))
    stuck = replace(lowered, rows=(tuple(a for a in lowered.rows[0] if a != Action(0, Kind.SEND_F, 1)),
                                   lowered.rows[1]))  # fmt: skip
    with pytest.raises(ScheduleError, match="rank 0 stands still before"):
        step_times([(stuck, random_costs(stuck, random.Random(0)))])
