"""The executor on schedules of every kind: what the planner prices is what runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.errors import DeviceMemoryError, RunError
from partition.plan import Search
from partition.plan.microbatches import microbatch_sizes
from partition.runtime import Fleet
from partition.schedule import Action, Kind, Schedule, from_text, generate, lower, replay
from tests.runtime.by_hand import ByHand, build_fleet, find, gradients

Make = Callable[..., ExperimentConfig]
SCHEDULES = ["gpipe", "1f1b", "zb_h1", "zb_h2"]
ACTIVATIONS = ["gelu", "relu", "identity"]
schedules = pytest.mark.parametrize("name", SCHEDULES)
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
ahead = pytest.mark.parametrize("receives_ahead", [0, 1])


def run(make_config: Make, name: str, *, activation: str, receives_ahead: int = 0) -> ByHand:
    """One step of 22 examples in 5 uneven microbatches over 3 stages."""
    planner = {"num_microbatches": (5,), "num_stages": (3,)}
    fleet = build_fleet(make_config(activation=activation, planner=planner), "pipeline-3x5-gpipe")
    schedule = lower(generate(name, num_ranks=3, num_microbatches=5), receives_ahead=receives_ahead)
    step = ByHand(fleet=fleet, schedule=schedule, sizes=microbatch_sizes(22, 5))
    step.run()
    return step


@schedules
@activations
@ahead
def test_every_schedule_peaks_at_the_planners_byte(
    make_config: Make, name: str, activation: str, receives_ahead: int
) -> None:
    step = run(make_config, name, activation=activation, receives_ahead=receives_ahead)
    assert [worker.device.peak_bytes for worker in step.fleet.workers] == step.predicted_peak_bytes()


@schedules
@ahead
def test_every_schedule_takes_the_replays_time(make_config: Make, name: str, receives_ahead: int) -> None:
    step = run(make_config, name, activation="gelu", receives_ahead=receives_ahead)
    measured_s = max(worker.clock.now_s for worker in step.fleet.workers)
    assert measured_s == pytest.approx(replay(step.schedule, step.costs()).makespan_s, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES[1:])
@activations
def test_every_schedule_gives_the_same_bits(make_config: Make, name: str, activation: str) -> None:
    expected = gradients(run(make_config, SCHEDULES[0], activation=activation).fleet)
    actual = gradients(run(make_config, name, activation=activation).fleet)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


def test_another_order_of_microbatches_gives_other_bits(make_config: Make) -> None:
    """The comparison above would notice; so W in increasing order is a rule that matters."""
    planner = {"num_microbatches": (3,)}
    found = []
    for text in ("0F0,0F1,0F2,0I0,0I1,0I2,0W0,0W1,0W2", "0F0,0F1,0F2,0I0,0I1,0I2,0W0,0W2,0W1"):
        fleet = build_fleet(make_config(planner=planner), "accumulate-3")
        ByHand(fleet=fleet, schedule=lower(from_text(text)), sizes=(8, 7, 7)).run()
        found.append(gradients(fleet))
    assert not all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@schedules
def test_nothing_is_left_when_a_step_is_done(make_config: Make, name: str) -> None:
    """Every buffer of a microbatch or a message has gone back."""
    for worker in run(make_config, name, activation="gelu").fleet.workers:
        plan = worker.stages[worker.rank].program.layers
        cost = build_static(make_config, plan[0].index, plan[-1].index)
        assert worker.device.held_bytes == cost


def build_static(make_config: Make, first: int, last: int) -> int:
    """Bytes that a stage holds throughout, for 5 microbatches."""
    return sum(Search(make_config()).model.stage(first, last).static_bytes(5).values())


def build_pair(make_config: Make, rows: tuple[tuple[Action, ...], ...]) -> ByHand:
    """Rows by hand, one microbatch of 22 examples, on two stages."""
    planner = {"num_microbatches": (1,), "num_stages": (2,)}
    schedule = Schedule(name="hand-made", num_stages=2, num_microbatches=1, placement=(0, 1), rows=rows)
    return ByHand(fleet=build_fleet(make_config(planner=planner), "pipeline-2x1-gpipe"), schedule=schedule, sizes=(22,))


def test_ranks_that_wait_for_one_another_are_named(make_config: Make) -> None:
    """An error with each rank and its action, where a hang would be."""
    rows = (
        (Action(0, Kind.F, 0), Action(0, Kind.RECV_B, 0), Action(0, Kind.B, 0), Action(0, Kind.SEND_F, 0)),
        (Action(1, Kind.RECV_F, 0), Action(1, Kind.F, 0), Action(1, Kind.B, 0), Action(1, Kind.SEND_B, 0)),
    )
    with pytest.raises(RunError, match=r"wait for one another \(rank 0: 0B0; rank 1: 1F0\)"):
        build_pair(make_config, rows).run()


def test_a_message_that_nobody_receives_ends_in_an_error_too(make_config: Make) -> None:
    rows = ((Action(0, Kind.F, 0), Action(0, Kind.SEND_F, 0), Action(0, Kind.STEP)), ())
    with pytest.raises(RunError, match="rank 0: 0STEP"):
        build_pair(make_config, rows).run()


@pytest.mark.parametrize(
    ("text", "action"),
    [("0F0,0F1,0B0,0B1", "0F1"), ("0F0,0F1,0I0,0I1,0W0,0W1", "0I0")],
    ids=["forward", "input gradient"],
)
def test_out_of_memory_names_the_action_at_which_it_happens(make_config: Make, text: str, action: str) -> None:
    """Room for all that stands before the action."""
    planner = {"num_microbatches": (2,)}
    schedule = lower(from_text(text))
    until = next(index for index, one in enumerate(schedule.rows[0]) if str(one) == action)
    before = Schedule(name="start", num_stages=1, num_microbatches=2, placement=(0,), rows=(schedule.rows[0][:until],))
    start = ByHand(fleet=build_fleet(make_config(planner=planner), "accumulate-2"), schedule=before, sizes=(11, 11))
    start.run()
    config = make_config(planner=planner, memory_bytes=start.fleet.workers[0].device.peak_bytes)
    with pytest.raises(DeviceMemoryError) as caught:
        ByHand(fleet=build_fleet(config, "accumulate-2"), schedule=schedule, sizes=(11, 11)).run()
    assert (caught.value.stage, caught.value.action) == (0, action)


def test_out_of_memory_before_the_first_step_is_in_set_up(make_config: Make) -> None:
    """Parameters that do not fit are refused when the fleet is built, with the stage that they belong to."""
    config = make_config(memory_bytes=100)
    with pytest.raises(DeviceMemoryError, match=r"in stage 0, action set-up: weight of layer 0 wants"):
        build_fleet(config, "whole")


def test_executors_run_step_after_step(make_config: Make) -> None:
    """A second step starts from nothing but parameters and state."""
    planner = {"num_microbatches": (5,), "num_stages": (3,)}
    search = Search(make_config(planner=planner))
    fleet = Fleet(search, find(search, "pipeline-3x5-1f1b"))
    x, y = np.zeros((22, 12), dtype=np.float32), np.zeros(22, dtype=np.int64)
    durations = [fleet.train(x, y, np.arange(22)).step_s for _ in range(3)]
    assert durations == pytest.approx([durations[0]] * 3, rel=1e-12)
