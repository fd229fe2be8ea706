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
from partition.plan.candidate import Candidate

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


def prices_noise(config: AnyConfig) -> bool:
    """Whether the steps to a loss follow from the noise: with SGD, which a table of costs is taken to be for."""
    return not isinstance(config, ExperimentConfig) or config.optimizer.name == "sgd"


def usable_noise(config: AnyConfig, noise: GradientNoise | None) -> float | None:
    """B_noise where it prices minibatches: identified, measured with SGD, and for SGD."""
    return noise.b_noise if noise and prices_noise(config) and noise.optimizer == "sgd" else None


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
