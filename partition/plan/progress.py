"""What a smaller minibatch costs: seconds of a step for the progress that a step of it makes.

A minibatch of b examples takes S(b) = S_min (1 + B_noise / b) steps to a given loss, where SGD's learning rate is
adapted to b (McCandlish et al. 2018). A step of t(b) seconds so takes

    t(b) (1 + B_noise / b)

for each unit of progress: on this axis shrinking and splitting are compared. Of other optimizers this is not known to
hold, and nothing is said. The learning rate that goes with a minibatch follows one of these rules, r = b / N:

    linear      lr r                                          Goyal et al. 2017; SGD, b well below B_noise
    sqrt        lr sqrt(r)                                    Malladi et al. 2022; Adam
    noise       lr (1 + B_noise / N) / (1 + B_noise / b)      McCandlish et al. 2018, equation 2.7; SGD, any b
    constant    lr
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from partition.config import AnyConfig, ExperimentConfig
from partition.costs import GradientNoise
from partition.errors import PartitionError
from partition.plan.candidate import Candidate, Prediction

TIE_OF_NOISE = 0.1
"""Differences of progress smaller than this are ties: noise is not known better."""


@dataclass(frozen=True, kw_only=True)
class LearningRateRule:
    """How the learning rate of an experiment is adapted to a smaller minibatch."""

    name: str
    lr: float
    """Of the experiment's own minibatch."""
    minibatch_size: int
    b_noise: float = 0.0
    """Used by `noise` alone."""

    def at(self, minibatch_size: int) -> float:
        """The learning rate of a minibatch."""
        ratio = minibatch_size / self.minibatch_size
        match self.name:
            case "constant":
                return self.lr
            case "sqrt":
                return self.lr * math.sqrt(ratio)
            case "noise":
                return self.lr * (1 + self.b_noise / self.minibatch_size) / (1 + self.b_noise / minibatch_size)
            case _:
                return self.lr * ratio


def learning_rate_rule(config: AnyConfig, noise: GradientNoise | None) -> LearningRateRule:
    """The rule that planner.learning_rate_rule names; else linear for SGD and the square root for Adam.

    Without a network no optimizer is known: it is the factor for SGD. Raises PartitionError where the rule takes a
    noise that is not known.
    """
    lr, is_sgd = 1.0, True
    if isinstance(config, ExperimentConfig):
        lr, is_sgd = config.optimizer.lr, config.optimizer.name == "sgd"
    name = config.planner.learning_rate_rule or ("linear" if is_sgd else "sqrt")
    b_noise = noise.b_noise if noise else None
    if name == "noise" and b_noise is None:
        has_file = "planner.noise holds no identifiable one" if noise else "planner.noise is not given"
        raise PartitionError(
            f"planner.learning_rate_rule: noise takes a measured noise, and {has_file}; name the noise.json of a run "
            "with training.noise=true, or take linear, sqrt or constant"
        )
    return LearningRateRule(
        name=name, lr=lr, minibatch_size=config.training.minibatch_size, b_noise=b_noise if b_noise else 0.0
    )


def usable_noise(config: AnyConfig, noise: GradientNoise | None) -> float | None:
    """B_noise where it prices minibatches: identified, measured with SGD, and for SGD."""
    is_sgd = not isinstance(config, ExperimentConfig) or config.optimizer.name == "sgd"
    return noise.b_noise if noise and is_sgd and noise.optimizer == "sgd" else None


def progress_s(step_s: float, minibatch_size: int, b_noise: float) -> float:
    """Seconds for each unit of progress: t(b) (1 + B_noise / b)."""
    return step_s * (1 + b_noise / minibatch_size)


def with_progress(candidates: Iterable[Candidate], b_noise: float | None) -> list[Candidate]:
    """The candidates with their `relative_progress_s`, where the noise is known."""
    if b_noise is None:
        return list(candidates)
    return [_with_progress(candidate, b_noise) for candidate in candidates]


def _with_progress(candidate: Candidate, b_noise: float) -> Candidate:
    predicted = candidate.predicted
    if predicted is None:
        return candidate
    found_s = progress_s(predicted.step_s, candidate.minibatch_size, b_noise)
    return replace(candidate, predicted=replace(predicted, relative_progress_s=found_s))


def without_progress(candidate: Candidate) -> Candidate:
    """The candidate as it is priced without a noise."""
    if candidate.predicted is None:
        return candidate
    return replace(candidate, predicted=replace(candidate.predicted, relative_progress_s=None))


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

    @property
    def wins_ever(self) -> bool:
        """Whether there is a noise, however small, at which it wins."""
        return self.wins_below is None or self.wins_below > 0


def noise_break_even(shrunk: Candidate, exact: Candidate) -> NoiseBreakEven:
    """The noise at which a smaller minibatch and an exact way are as good: a crossing of two lines in B_noise.

    t(b) (1 + B / b) = t(N) (1 + B / N)        B = (t(N) - t(b)) / (t(b) / b - t(N) / N)
    """
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
