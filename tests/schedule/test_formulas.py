"""Idle time and microbatches in flight against the formulas of the papers, with F = I = W = 1 and free messages.

p ranks, m microbatches, v stages a rank. Idle is taken over the makespan unless it says `span`. In flight counts
from F to W, in stages of one microbatch.
"""

from dataclasses import replace

import pytest

from partition.schedule import Kind, Replay, generate, lower, replay, uniform_costs


def replayed(name: str, ranks: int, microbatches: int, stages_per_rank: int | None = None) -> Replay:
    stages = None if stages_per_rank is None else ranks * stages_per_rank
    schedule = lower(generate(name, num_ranks=ranks, num_microbatches=microbatches, num_stages=stages))
    one, less = ((1,),) * schedule.num_stages, ((-1,),) * schedule.num_stages
    return replay(schedule, replace(uniform_costs(schedule), net_bytes={Kind.F: one, Kind.B: less, Kind.W: less}))


def idle_s(result: Replay) -> set[float]:
    return {result.makespan_s - rank.busy_s for rank in result.ranks}


@pytest.mark.parametrize("ranks", range(1, 9))
def test_gpipe(ranks: int) -> None:
    """Huang et al. 2019, section 2.3: a share (p-1)/(m+p-1) of the makespan is idle, m are in flight."""
    for microbatches in range(1, 25):
        result = replayed("gpipe", ranks, microbatches)
        share = (ranks - 1) / (microbatches + ranks - 1)
        assert all((result.makespan_s - r.busy_s) / result.makespan_s == pytest.approx(share) for r in result.ranks)
        assert result.peak_bytes == (microbatches,) * ranks


@pytest.mark.parametrize("ranks", range(1, 9))
def test_1f1b(ranks: int) -> None:
    """Narayanan et al. 2021, section 2.2.1: the idle time of GPipe; 2019, section 3.2: p - r in flight on rank r."""
    for microbatches in range(1, 25):
        result = replayed("1f1b", ranks, microbatches)
        share = (ranks - 1) / (microbatches + ranks - 1)
        assert all((result.makespan_s - r.busy_s) / result.makespan_s == pytest.approx(share) for r in result.ranks)
        assert result.peak_bytes == tuple(min(microbatches, ranks - rank) for rank in range(ranks))


@pytest.mark.parametrize("stages_per_rank", [2, 3])
@pytest.mark.parametrize("ranks", range(1, 9))
def test_interleaved_1f1b(ranks: int, stages_per_rank: int) -> None:
    """Narayanan et al. 2021, section 2.2.2, for m a multiple of p.

    Idle (p-1)(F+B)/v with F and B of all stages of a rank; rank 0 holds p - 1 stages more than v p.
    """
    for groups in range(1, 4):
        result = replayed("interleaved_1f1b", ranks, groups * ranks, stages_per_rank)
        assert idle_s(result) == {3.0 * (ranks - 1)}
    if ranks > 1:
        assert result.peak_bytes[0] == stages_per_rank * ranks + ranks - 1


def test_interleaved_1f1b_loses_nothing_where_microbatches_are_no_multiple_of_the_ranks() -> None:
    for microbatches in range(4, 25):
        assert idle_s(replayed("interleaved_1f1b", 4, microbatches)) == {9.0}


@pytest.mark.parametrize("ranks", range(1, 9))
def test_zb_h1(ranks: int) -> None:
    """Qi et al. 2023, table 1: idle (p-1)(F+I-W), a third of 1F1B's; p in flight, as rank 0 of 1F1B."""
    for microbatches in range(ranks, 25):
        result = replayed("zb_h1", ranks, microbatches)
        assert idle_s(result) == {float(ranks - 1)}
        assert idle_s(replayed("1f1b", ranks, microbatches)) == {3.0 * (ranks - 1)}
        assert result.peak_bytes == (ranks,) * ranks


@pytest.mark.parametrize("ranks", range(1, 9))
def test_zb_h2(ranks: int) -> None:
    """Qi et al. 2023, table 1: idle (p-1)(F+I-2W) = 0 within each span from m = 2p - 1 on; 2p - 1 in flight.

    Over the makespan (p-1) F remain: a barrier before the step, as a norm of all gradients makes it, brings them back.
    """
    for microbatches in range(2 * ranks - 1, 25):
        result = replayed("zb_h2", ranks, microbatches)
        assert {rank.bubble_s for rank in result.ranks} == {0.0}
        assert idle_s(result) == {float(ranks - 1)}
        assert result.peak_bytes == (2 * ranks - 1,) * ranks


@pytest.mark.parametrize("ranks", range(1, 9))
def test_zbv(ranks: int) -> None:
    """Qi et al. 2024, section 5: no idle within each span from m = 2p - 1 on; 2p half stages, the memory of 1F1B.

    A stage is half a rank here, so that the (p-1) stages of F that remain over the makespan are half of ZB-H2's.
    """
    for microbatches in range(2 * ranks, 25):
        result = replayed("zbv", ranks, microbatches)
        assert {rank.bubble_s for rank in result.ranks} == {0.0}
        assert idle_s(result) == {float(ranks - 1)}
        assert result.peak_bytes == (2 * ranks,) * ranks


@pytest.mark.parametrize(("name", "held"), [("1f1b", 4), ("zb_h1", 8), ("zb_h2", 14), ("zbv", 7)])
def test_where_a_layer_holds_two_tensors_from_i_to_w_splitting_costs_memory(name: str, held: int) -> None:
    """Most microbatches of a rank that any of four ranks holds, counting what lies between I and W twice."""
    schedule = lower(generate(name, num_ranks=4, num_microbatches=12))
    change = {Kind.F: 1, Kind.I: 1, Kind.W: -2, Kind.B: -1}
    net = {kind: ((value,),) * schedule.num_stages for kind, value in change.items()}
    result = replay(schedule, replace(uniform_costs(schedule), net_bytes=net))
    assert max(result.peak_bytes) == held * len(schedule.stages_of(0))


def test_a_barrier_before_the_step_brings_the_idle_time_back() -> None:
    schedule = lower(generate("zb_h2", num_ranks=4, num_microbatches=12))
    costs = uniform_costs(schedule)
    free, together = replay(schedule, costs), replay(schedule, costs, has_step_barrier=True)
    assert {rank.bubble_s for rank in free.ranks} == {0.0}
    assert [rank.bubble_s for rank in together.ranks] == [3.0, 2.0, 1.0, 0.0]
    assert free.makespan_s == together.makespan_s
