"""Clocks: the seconds of a simulated device are its cost model's, those of a real one are the wall's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The time of one rank."""

    @property
    def now_s(self) -> float:
        """Seconds since the clock's origin."""

    def work(self, seconds: float) -> None:
        """Account for an action that has just run, predicted to take `seconds`."""

    def wait_until(self, instant_s: float) -> None:
        """Account for having waited until an instant."""


class SimulatedClock:
    """Moves only when told: replaying the same costs in the same order gives the same floats."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def work(self, seconds: float) -> None:
        """Account for an action that has just run, predicted to take `seconds`."""
        self.now_s += seconds

    def wait_until(self, instant_s: float) -> None:
        """Account for having waited until an instant."""
        self.now_s = max(self.now_s, instant_s)


class WallClock:
    """Seconds of the machine; what is predicted has no influence on it."""

    @property
    def now_s(self) -> float:
        """Seconds of a monotonic clock."""
        return time.perf_counter()

    def work(self, seconds: float) -> None:
        """Nothing to account for: the time has passed."""

    def wait_until(self, instant_s: float) -> None:
        """Nothing to account for: the time has passed."""
