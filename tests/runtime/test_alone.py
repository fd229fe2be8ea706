"""How much sooner a rank is done where the others wait."""

from __future__ import annotations

import pytest

from partition.runtime import alone
from partition.runtime.alone import measure_alone
from partition.runtime.joining import join, leave
from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld
from partition.runtime.profiling import Runner
from partition.runtime.world import LocalWorld
from tests.runtime.conftest import build_config
from tests.runtime.ranks import run_ranks


def test_the_only_rank_is_always_alone() -> None:
    found = measure_alone(build_config(), LocalWorld(1, 1), 2**30)
    assert 0.5 < found.factor <= 1


@pytest.mark.parametrize(("seconds", "factor"), [((2.0, 1.5), 0.75), ((2.0, 3.0), 1.0)])
def test_it_is_the_ratio_of_steps_alone_to_steps_together_and_at_most_1(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], factor: float
) -> None:
    """By a clock of the test's: all steps together take the one, all steps alone the other."""
    counts = {"steps": 0}

    def step_s(_: Runner) -> float:
        counts["steps"] += 1
        # The first of each size finds out how many make a round, of which there are at least two.
        place = (counts["steps"] - 1) % (1 + 2 * alone.ROUNDS * alone.LEAST_STEPS)
        return seconds[0] if place == 0 else seconds[(place - 1) // alone.LEAST_STEPS % 2]

    monkeypatch.setattr(Runner, "step_s", step_s)
    found = measure_alone(build_config(), LocalWorld(1, 1), 2**30)
    assert (found.factor, found.spread) == (factor, 0.0)


def of_rank() -> float:
    process = Process.of_environment()
    assert process is not None
    join(process, 60.0)
    world = ProcessWorld(process, num_replicas=1, is_cuda=False, timeout_s=60.0)
    try:
        return measure_alone(build_config(), world, 2**30).factor
    finally:
        world.close()
        leave()


@pytest.mark.slow
def test_two_ranks_take_turns() -> None:
    first, other = run_ranks(2, of_rank)
    assert 0.1 < first <= 1
    assert other == 1
