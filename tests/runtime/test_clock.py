"""Clocks: a simulated one moves when told, a real one by itself."""

from __future__ import annotations

import pytest

from partition.runtime.clock import Clock, SimulatedClock, WallClock


def test_a_simulated_clock_adds_what_an_action_takes() -> None:
    clock = SimulatedClock()
    clock.work(0.25)
    clock.work(0.5)
    assert clock.now_s == 0.75


@pytest.mark.parametrize(("instant_s", "expected_s"), [(3.0, 3.0), (2.0, 2.0), (1.0, 2.0)])
def test_a_simulated_clock_waits_but_never_goes_back(instant_s: float, expected_s: float) -> None:
    clock = SimulatedClock()
    clock.work(2.0)
    clock.wait_until(instant_s)
    assert clock.now_s == expected_s


def test_a_simulated_clock_stands_still_otherwise() -> None:
    clock = SimulatedClock()
    assert clock.now_s == clock.now_s == 0.0


def test_a_wall_clock_takes_no_notice_of_predictions() -> None:
    """Neither a million seconds of work nor a wait of as long are added to it."""
    clock: Clock = WallClock()
    before_s = clock.now_s
    clock.work(1e6)
    clock.wait_until(before_s + 1e6)
    assert 0 <= clock.now_s - before_s < 1e3


def test_a_wall_clock_moves_by_itself() -> None:
    clock = WallClock()
    before_s = clock.now_s
    while clock.now_s == before_s:
        pass
    assert clock.now_s > before_s
