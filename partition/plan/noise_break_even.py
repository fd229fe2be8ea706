"""Below which gradient noise a smaller minibatch beats an exact way: a crossing of two lines in B_noise.

t(b) (1 + B / b) = t(N) (1 + B / N)        B = (t(N) - t(b)) / (t(b) / b - t(N) / N)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from partition.plan.candidate import Candidate, Prediction
from partition.plan.choice import choose, eligible
from partition.plan.progress import TIE_OF_NOISE


def noise_break_evens(candidates: Sequence[Candidate]) -> Iterator[NoiseBreakEven]:
    """The best smaller minibatch against the best exact way of all, and of one device."""
    exact = [one for one in eligible(candidates, "step_time") if one.exact_gradient]
    shrunk = [one for one in candidates if one.feasible and one.strategy == "shrink"]
    best = choose(exact, "step_time")
    alone = choose([one for one in exact if one.num_devices == 1], "step_time")
    for rival in (best, alone if alone is not best else None):
        found = [noise_break_even(one, rival) for one in shrunk if rival is not None]
        if found:
            yield max(found, key=lambda one: math.inf if one.wins_below is None else one.wins_below)


@dataclass(frozen=True, kw_only=True)
class NoiseBreakEven:
    """Below which noise a smaller minibatch beats an exact way."""

    candidate: str
    """The smaller minibatch."""
    rival: str
    """The exact way."""
    wins_below: float | None
    """B_noise below which it is ahead by more than a tie; None: whatever the noise, 0: never."""
    even_at: float | None
    """B_noise at which both are predicted to be as fast."""


def noise_break_even(shrunk: Candidate, exact: Candidate) -> NoiseBreakEven:
    """The noise at which a smaller minibatch and an exact way are as good."""
    return NoiseBreakEven(
        candidate=shrunk.name,
        rival=exact.name,
        wins_below=_crossing(shrunk, exact, 1 + TIE_OF_NOISE),
        even_at=_crossing(shrunk, exact, 1.0),
    )


def _crossing(shrunk: Candidate, exact: Candidate, factor: float) -> float | None:
    """B_noise at which the smaller minibatch takes 1 / factor times as long; 0: it never does, None: it always does."""
    small, large = _predicted(shrunk), _predicted(exact)
    ahead_s = large.step_s - small.step_s * factor
    per_example_s = small.step_s * factor / shrunk.minibatch_size - large.step_s / exact.minibatch_size
    if ahead_s <= 0:
        return 0.0
    return ahead_s / per_example_s if per_example_s > 0 else None


def _predicted(candidate: Candidate) -> Prediction:
    assert candidate.predicted is not None, "a feasible candidate is priced"
    return candidate.predicted
