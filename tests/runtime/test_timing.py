"""What is made of repetitions, and the laps of a step."""

from __future__ import annotations

import pytest

from partition.runtime.stand_in import candidates, stand_in_search
from partition.runtime.timing import Runner, median_and_spread
from tests.runtime.conftest import build_config


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([2.0], (2.0, 0.0)), ([0.0, 0.0], (0.0, 0.0)), ([1.0, 2.0, 3.0, 4.0, 5.0], (3.0, 2 / 3))],
)
def test_spread_is_the_distance_of_the_quartiles_over_the_median(
    seconds: list[float], expected: tuple[float, float]
) -> None:
    assert median_and_spread(seconds) == pytest.approx(expected)


def test_one_disturbed_repetition_is_no_spread() -> None:
    """The largest less the smallest was 99 times the median."""
    assert median_and_spread([1.0] * 8 + [100.0]) == (1.0, 0.0)


def test_a_step_is_its_laps_and_a_rest_and_without_marks_has_no_laps() -> None:
    config = build_config()
    full, halves = candidates(stand_in_search(config, 2**30), 2)
    runner = Runner(stand_in_search(config, 2**30), full)
    step = runner.step()
    laps_s = step.total_s - step.update_s - step.rest_s
    assert step.num_actions == 2 * full.num_microbatches
    assert Runner(stand_in_search(config, 2**30), halves).step().num_actions == 3 * halves.num_microbatches
    assert 0 < max(step.operators_s.values()) <= laps_s < step.total_s
    assert runner.step_s(is_marked=False) > 0
    assert runner.step().operators_s.keys() == step.operators_s.keys()


def test_seconds_times_a_factor() -> None:
    config = build_config()
    search = stand_in_search(config, 2**30)
    step = Runner(search, candidates(search, 2)[0]).step()
    half = step.times(0.5)
    assert (half.total_s, half.rest_s, half.update_s) == (step.total_s / 2, step.rest_s / 2, step.update_s / 2)
    assert half.operators_s == {key: of / 2 for key, of in step.operators_s.items()}
    assert half.num_actions == step.num_actions
