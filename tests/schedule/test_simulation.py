"""Figures of a simulation and memory over time, by hand and against the replay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.schedule import GENERATORS, Schedule, from_text, generate, lower, replay, to_text
from partition.schedule.replay_costs import stage_costs
from partition.schedule.simulation import Simulation, figures, memory_over_time, simulate
from tests.schedule.cases import arbitrary_costs


def unit(schedule: Schedule, *, send_s: float = 0.0, has_step_barrier: bool = False) -> Simulation:
    stages = schedule.num_stages
    costs = stage_costs(
        num_microbatches=schedule.num_microbatches,
        forward_s=[1.0] * stages,
        input_grad_s=[1.0] * stages,
        weight_grad_s=[1.0] * stages,
        send_s=[send_s] * stages,
        kept_bytes=[1] * stages,
    )
    return simulate(schedule, costs, has_step_barrier=has_step_barrier, is_in_bytes=False)


def test_figures_by_hand() -> None:
    """Rank 0: F0 0..1, F1 1..2, B0 4..6, B1 7..9; rank 1: F0 1..2, B0 2..4, F1 4..5, B1 5..7."""
    found = figures(unit(generate("1f1b", num_ranks=2, num_microbatches=2)))
    assert (found.makespan_s, found.num_transfers, found.transfer_s) == (9.0, 4, 0.0)
    assert found.bubble_fraction == pytest.approx(6 / 18)
    shown = [(one.busy_s, one.idle_s, one.bubble_s, one.most_in_flight, one.peak_bytes, one.peak_action)
             for one in found.ranks]  # fmt: skip
    assert shown == [(6.0, 3.0, 3.0, 2, 2, "0F1"), (6.0, 3.0, 0.0, 1, 1, "1F0")]
    assert [one.stages for one in found.ranks] == [(0,), (1,)]


def test_between_i_and_w_two_are_kept_for_one() -> None:
    found = figures(unit(from_text("0F0,0F1,0I0,0I1,0W0,0W1\n"))).ranks[0]
    assert (found.most_in_flight, found.peak_bytes, found.peak_action) == (2, 4, "0I1")


def test_memory_over_time_by_hand() -> None:
    samples = memory_over_time(unit(generate("1f1b", num_ranks=2, num_microbatches=2)), 1)
    assert samples == ((0.0, 0), (1.0, 1), (4.0, 0), (4.0, 1), (7.0, 0))


def test_what_is_held_throughout_is_held_from_the_start() -> None:
    schedule = generate("zb_h1", num_ranks=3, num_microbatches=4)
    simulation = simulate(schedule, arbitrary_costs(schedule, 5))
    for rank in range(3):
        assert memory_over_time(simulation, rank)[0] == (0.0, simulation.costs.static_bytes[rank])


@given(st.sampled_from(sorted(GENERATORS)), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_memory_over_time_peaks_where_the_replay_does(name: str, ranks: int, microbatches: int, seed: int) -> None:
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    simulation = simulate(schedule, arbitrary_costs(schedule, seed))
    for rank in range(ranks):
        samples = memory_over_time(simulation, rank)
        assert max(sample.held_bytes for sample in samples) == simulation.replay.peak_bytes[rank]
        assert [sample.time_s for sample in samples] == sorted(sample.time_s for sample in samples)


@given(st.sampled_from(sorted(GENERATORS)), st.integers(1, 4), st.integers(1, 6))
def test_a_lowered_text_is_simulated_as_the_schedule_it_was_written_from(name: str, ranks: int, count: int) -> None:
    """The text form leaves optimizer steps out, and a step waits for the sends of its rank."""
    schedule = generate(name, num_ranks=ranks, num_microbatches=count)
    read = from_text(to_text(schedule, lowered=True), is_forward_only=schedule.is_forward_only)
    first, second = unit(schedule, send_s=0.75), unit(read, send_s=0.75)
    assert first.schedule.rows == second.schedule.rows
    assert first.replay == second.replay


def test_a_barrier_changes_the_bubble_and_not_the_makespan() -> None:
    schedule = generate("zb_h2", num_ranks=4, num_microbatches=12)
    free, together = figures(unit(schedule)), figures(unit(schedule, has_step_barrier=True))
    assert free.makespan_s == together.makespan_s
    assert [rank.bubble_s for rank in free.ranks] == [0.0] * 4
    assert [rank.bubble_s for rank in together.ranks] == [3.0, 2.0, 1.0, 0.0]


def test_a_schedule_without_duration_has_no_idle_time() -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=2)
    nothing = [0.0, 0.0]
    costs = stage_costs(num_microbatches=2, forward_s=nothing, input_grad_s=nothing, weight_grad_s=nothing,
                        send_s=nothing, kept_bytes=[0, 0])  # fmt: skip
    found = figures(simulate(schedule, costs))
    assert (found.makespan_s, found.bubble_fraction) == (0.0, 0.0)


def test_replay_of_a_simulation_is_the_replay() -> None:
    schedule = generate("1f1b", num_ranks=3, num_microbatches=4)
    costs = arbitrary_costs(schedule, 3)
    assert simulate(schedule, costs).replay == replay(lower(schedule), costs)
