"""The noise of the gradient: how much the gradients of single examples differ, from figures of training steps.

With g_n the gradient of the loss of one example (without the penalty, which has no noise), N examples in a minibatch
and G their mean,

    B_noise = tr(Sigma) / |g|^2        Sigma: covariance of g_n;  g: mean of g_n over the data set

is the minibatch at which noise and gradient are as large as each other. A step yields unbiased figures of both parts,

    tr(Sigma)   (mean |g_n|^2 - |G|^2) N / (N - 1)
    |g|^2       |G|^2 - tr(Sigma) / N, times 1 - N/n where minibatches are drawn without replacement from n examples

of which the second is often negative. Means over steps are divided, never single figures.
Source: McCandlish et al. 2018, An Empirical Model of Large-Batch Training, appendix A; Fieller 1954 for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

LEAST_STEPS = 8
"""Fewer say too little about how much they differ."""
LARGEST_PART = 0.25
"""B_noise has to be at most this part of the data set: S(b) = S_min (1 + B_noise / b) is of minibatches drawn
independently, and those of an epoch have B_noise / n of S_min less noise."""
CONFIDENCE = 0.95
_QUANTILE = 1.959963984540054
"""Of the normal distribution, for CONFIDENCE in the middle."""


@dataclass(frozen=True, kw_only=True)
class StepNoise:
    """What one step measures: its examples' gradients one by one, and their mean."""

    num_examples: int
    example_square: float
    """Mean over the examples of |g_n|^2."""
    mean_square: float
    """|mean of g_n|^2."""


class Parts(NamedTuple):
    """Unbiased figures of one step."""

    tr_sigma: float
    grad_sq_norm: float
    """Below 0 where chance has it."""


@dataclass(frozen=True, kw_only=True)
class NoiseEstimate:
    """B_noise of the steps of a run; where it is not identifiable there is none, and the reason says why."""

    identifiable: bool
    reason: str
    """Empty where it is identifiable."""
    b_noise: float | None
    interval: tuple[float, float | None] | None
    """Where B_noise lies with 95% confidence; no upper end where |g|^2 might be 0, None where nothing is known."""
    tr_sigma: float | None
    """Mean over the steps."""
    grad_sq_norm: float | None
    """Mean over the steps; may be below 0 by chance."""
    steps: int


def step_parts(step: StepNoise, population: int | None = None) -> Parts | None:
    """The unbiased figures of a step; None of a single example, or of figures that are not finite.

    `population` is the number of examples of which the minibatch was drawn without replacement; None: with.
    """
    size = step.num_examples
    if size < 2:
        return None
    tr_sigma = max(0.0, step.example_square - step.mean_square) * size / (size - 1)  # below 0 by rounding alone
    drawn = 1.0 if population is None else 1.0 - size / population
    parts = Parts(tr_sigma, step.mean_square - drawn * tr_sigma / size)
    return parts if all(map(math.isfinite, (step.example_square, *parts))) else None


def estimate_noise(parts: Sequence[Parts], population: int | None = None) -> NoiseEstimate:
    """B_noise of steps on minibatches of one size, with its interval.

    `population` is the number of examples in the data set, which B_noise has to be small against; None: any is.
    """
    steps = len(parts)
    if steps < LEAST_STEPS:
        return _unknown(f"{steps} measured step{'s' * (steps != 1)}, at least {LEAST_STEPS} are needed", steps)
    mean = _mean(parts)
    if mean.tr_sigma == 0.0 and mean.grad_sq_norm == 0.0:
        return _unknown("every gradient is 0", steps, mean)
    low, high = _interval(parts)
    if high is None or mean.grad_sq_norm <= 0.0:
        reason = f"the mean gradient is lost in its noise over {steps} steps; measure more steps, or larger minibatches"
        return _unknown(reason, steps, mean, (low, None))
    b_noise = mean.tr_sigma / mean.grad_sq_norm
    low, high = min(low, b_noise), max(high, b_noise)  # rounding
    if population is not None and b_noise > LARGEST_PART * population:
        reason = (
            f"{b_noise:.3g} is not small against the {population} examples of the data set (at most a quarter): in "
            "epochs over so few the noise of minibatches is not that of independent ones"
        )
        return _unknown(reason, steps, mean, (low, high))
    return NoiseEstimate(identifiable=True, reason="", b_noise=b_noise, interval=(low, high), tr_sigma=mean.tr_sigma,
                         grad_sq_norm=mean.grad_sq_norm, steps=steps)  # fmt: skip


def _unknown(
    reason: str, steps: int, mean: Parts | None = None, interval: tuple[float, float | None] | None = None
) -> NoiseEstimate:
    return NoiseEstimate(
        identifiable=False,
        reason=reason,
        b_noise=None,
        interval=interval,
        tr_sigma=mean.tr_sigma if mean else None,
        grad_sq_norm=mean.grad_sq_norm if mean else None,
        steps=steps,
    )


def _mean(parts: Sequence[Parts]) -> Parts:
    return Parts(*(math.fsum(value / len(parts) for value in one) for one in zip(*parts, strict=True)))


def _interval(parts: Sequence[Parts]) -> tuple[float, float | None]:
    """All R >= 0 for which mean tr(Sigma) - R mean |g|^2 is 0 as far as its own spread tells (Fieller 1954).

    Spreads come from differences of consecutive steps, so that what changes slowly along a run is none.
    """
    steps = len(parts)
    scale = max(abs(value) for one in parts for value in one)  # so that no square is too large or too small
    parts = [Parts(one.tr_sigma / scale, one.grad_sq_norm / scale) for one in parts]
    mean = _mean(parts)
    # Successive differences tell as much as two thirds of the steps would about a mean that is known.
    limit = _student(2 * (steps - 1) / 3) ** 2 / (2 * (steps - 1) * steps)
    differences = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(parts)]
    a = mean.grad_sq_norm**2 - limit * math.fsum(q * q for _, q in differences)
    b = mean.grad_sq_norm * mean.tr_sigma - limit * math.fsum(t * q for t, q in differences)
    c = mean.tr_sigma**2 - limit * math.fsum(t * t for t, _ in differences)
    # a R^2 - 2 b R + c <= 0
    root = math.sqrt(max(0.0, b * b - a * c))
    if a > 0.0 and mean.grad_sq_norm > 0.0:
        return max(0.0, (b - root) / a), max(0.0, (b + root) / a)
    if a < 0.0 < c:  # not between the two roots, of which one is below 0
        return max(0.0, (b - root) / a), None
    return 0.0, None


def _student(freedom: float) -> float:
    """The quantile of Student's t by its expansion about the normal one (Abramowitz and Stegun 26.7.5)."""
    x = _QUANTILE
    first = (x**3 + x) / 4
    second = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    third = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return x + first / freedom + second / freedom**2 + third / freedom**3
