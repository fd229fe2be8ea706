"""The figures on integer arrays are those of the replay, bit for bit."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.errors import ScheduleError
from partition.schedule import (
    GENERATORS,
    Schedule,
    from_text,
    generate,
    lower,
    replay,
    uniform_costs,
    with_recomputation,
)
from partition.schedule.fast.coded import decode, encode, generate_coded
from partition.schedule.fast.estimate import estimate
from tests.schedule.cases import arbitrary_costs


def same_figures(schedule: Schedule, seed: int, *, has_step_barrier: bool = False, receives_ahead: int = 0) -> None:
    costs = arbitrary_costs(schedule, seed, classes=1 + seed % 3)
    exact = replay(lower(schedule, receives_ahead=receives_ahead), costs, has_step_barrier=has_step_barrier)
    fast = estimate(schedule, costs, has_step_barrier=has_step_barrier, receives_ahead=receives_ahead)
    assert fast.makespan_s == exact.makespan_s
    assert fast.peak_bytes == exact.peak_bytes
    assert fast.busy_s.tolist() == [rank.busy_s for rank in exact.ranks]
    assert fast.first_s.tolist() == [rank.first_s for rank in exact.ranks]
    assert fast.last_s.tolist() == [rank.last_s for rank in exact.ranks]
    assert fast.bubble_s.tolist() == [rank.span_s - rank.busy_s for rank in exact.ranks]


@given(st.sampled_from(sorted(GENERATORS)), st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6), st.booleans())
def test_figures_are_those_of_the_replay(name: str, ranks: int, microbatches: int, seed: int, barrier: bool) -> None:
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    same_figures(schedule, seed, has_step_barrier=barrier and not schedule.is_forward_only)


@given(st.sampled_from(["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zbv"]), st.integers(1, 5), st.integers(0, 2**8),
       st.integers(0, 3))  # fmt: skip
def test_figures_agree_where_some_stages_recompute(name: str, ranks: int, stages: int, receives_ahead: int) -> None:
    schedule = generate(name, num_ranks=ranks, num_microbatches=6)
    recomputed = [stage for stage in range(schedule.num_stages) if stages >> stage & 1]
    same_figures(with_recomputation(schedule, recomputed), stages, receives_ahead=receives_ahead)


@given(st.sampled_from(["gpipe", "interleaved_1f1b", "zb_h1", "zbv"]), st.integers(1, 5), st.integers(1, 3))
def test_figures_agree_where_receives_are_posted_ahead(name: str, ranks: int, receives_ahead: int) -> None:
    same_figures(generate(name, num_ranks=ranks, num_microbatches=7), 5, receives_ahead=receives_ahead)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(1, 6))
def test_figures_agree_on_any_placement(ranks: list[int], microbatches: int) -> None:
    numbered = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    placement = [numbered[rank] for rank in ranks]
    count = len(numbered)
    same_figures(generate("zb_h1", num_ranks=count, num_microbatches=microbatches, placement=placement), 11)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_schedule_coded_at_once_is_the_schedule_coded(name: str) -> None:
    schedule = generate(name, num_ranks=3, num_microbatches=5)
    coded = generate_coded(name, num_ranks=3, num_microbatches=5)
    assert np.array_equal(coded.rows, encode(schedule).rows)
    assert tuple(decode(row, coded.num_stages, 5) for row in coded.rows) == schedule.rows
    assert coded.placement == schedule.placement


def test_rows_that_stand_still_are_refused() -> None:
    schedule = from_text("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    with pytest.raises(ScheduleError, match="rank 0 stands still"):
        estimate(schedule, uniform_costs(schedule))


def test_microbatches_out_of_order_are_refused() -> None:
    with pytest.raises(ScheduleError, match="rank 0 does not take microbatches in increasing order"):
        encode(from_text("0F0,0F1,0B1,0B0\n"))


LARGE = """
import resource, time
from partition.schedule.actions import Kind
from partition.schedule.fast.coded import generate_coded
from partition.schedule.fast.estimate import estimate
from partition.schedule.replay_costs import ReplayCosts
ranks, microbatches = 1024, 4096
one = lambda value: ((value,),) * ranks
costs = ReplayCosts(
    size_class=(0,) * microbatches, seconds={Kind.F: one(1.0), Kind.B: one(2.0)},
    send_forward_s=one(0.0), send_backward_s=one(0.0),
    net_bytes={Kind.F: one(1), Kind.B: one(-1)}, peak_bytes={Kind.B: one(1)},
)
start = time.process_time()
figures = estimate(generate_coded("1f1b", num_ranks=ranks, num_microbatches=microbatches), costs)
print(figures.makespan_s, figures.peak_bytes[0], time.process_time() - start,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_thousand_ranks_of_four_thousand_microbatches_take_seconds() -> None:
    """Within 10 s of one core and 1 GiB, with the makespan and the microbatches in flight of the formula."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    makespan, peak, seconds, kibibytes = done.stdout.split()
    assert (float(makespan), int(peak)) == (3.0 * (4096 + 1023), 1024 + 1)
    assert float(seconds) < 10
    assert int(kibibytes) < 1024 * 1024


@pytest.mark.slow
def test_sixty_four_ranks_of_five_hundred_microbatches_take_a_fraction_of_a_second() -> None:
    """The quickest of five: others may use the machine."""
    coded = generate_coded("1f1b", num_ranks=64, num_microbatches=512)
    costs = uniform_costs(generate("1f1b", num_ranks=64, num_microbatches=512))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert estimate(coded, costs).makespan_s == 3.0 * (512 + 63)
        times.append(time.process_time() - start)
    assert min(times) < 0.3
