"""The estimate of B_noise on made-up gradients whose noise is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from partition.costs.noise import LEAST_STEPS, NoiseEstimate, Parts, StepNoise, estimate_noise, step_parts

Gradients = NDArray[np.float64]


def gradients(random: np.random.Generator, num_examples: int, mean: float, size: int = 30) -> Gradients:
    """One row for each example: noise of several scales about a common gradient."""
    found: Gradients = mean + random.standard_normal((num_examples, size)) * np.geomspace(0.2, 3, size)
    return found


def step_noise(of: Gradients) -> StepNoise:
    return StepNoise(
        num_examples=len(of),
        example_square=float(np.square(of).sum(axis=1).mean()),
        mean_square=float(np.square(of.mean(axis=0)).sum()),
    )


def direct(of: Gradients, population: int | None) -> float:
    """B_noise over all examples; Sigma is the data set's own, or that of what it was drawn from without replacement."""
    sigma = np.trace(np.cov(of.T, ddof=0 if population is None else 1))
    return float(sigma / np.square(of.mean(axis=0)).sum())


def run(random: np.random.Generator, data: Gradients, size: int, steps: int, population: int | None) -> NoiseEstimate:
    found = []
    for _ in range(steps):
        batch = random.choice(len(data), size, replace=population is None)
        parts = step_parts(step_noise(data[batch]), population)
        assert parts is not None
        found.append(parts)
    return estimate_noise(found, population)


@pytest.mark.parametrize("is_replaced", [True, False])
def test_both_parts_are_unbiased(is_replaced: bool) -> None:
    """12 of 20 examples at a time, so that drawing them without replacement is far from drawing them independently."""
    random = np.random.default_rng(0)
    data = gradients(random, 20, 0.3)
    population = None if is_replaced else 20
    parts = [
        step_parts(step_noise(data[random.choice(20, 12, replace=is_replaced)]), population) for _ in range(20_000)
    ]
    means = np.array([one for one in parts if one]).mean(axis=0)
    assert means[0] == pytest.approx(np.trace(np.cov(data.T, ddof=int(not is_replaced))), rel=0.01)
    assert means[1] == pytest.approx(np.square(data.mean(axis=0)).sum(), rel=0.02)


def test_the_whole_data_set_as_minibatch_leaves_nothing_to_estimate() -> None:
    data = gradients(np.random.default_rng(1), 50, 0.5)
    noise = run(np.random.default_rng(2), data, 50, LEAST_STEPS, 50)
    assert noise.b_noise is None or noise.b_noise == pytest.approx(direct(data, 50))
    assert noise.tr_sigma is not None
    assert noise.grad_sq_norm is not None
    assert noise.tr_sigma / noise.grad_sq_norm == pytest.approx(direct(data, 50))


@pytest.mark.parametrize("population", [None, 2000])
def test_the_interval_holds_the_noise_about_as_often_as_it_says(population: int | None) -> None:
    random = np.random.default_rng(3)
    data = gradients(random, 2000, 0.7)
    exact = direct(data, population)
    found = [run(random, data, 16, 12, population) for _ in range(300)]
    held = [
        low <= exact <= (math.inf if high is None else high) for low, high in (one.interval or (1, 0) for one in found)
    ]
    assert 0.91 <= np.mean(held) <= 0.995
    assert sum(one.identifiable for one in found) > 250


def test_more_steps_tell_more() -> None:
    random = np.random.default_rng(4)
    data = gradients(random, 2000, 0.7)
    few, many = (run(random, data, 16, steps, None) for steps in (20, 2000))
    assert many.b_noise == pytest.approx(direct(data, None), rel=0.05)
    widths = [(one.interval[1] or math.inf) - one.interval[0] for one in (few, many) if one.interval]
    assert widths[1] < widths[0] / 5


def test_a_gradient_lost_in_noise_is_not_identifiable_whatever_its_sign_comes_to() -> None:
    random = np.random.default_rng(5)
    data = gradients(random, 500, 0.0)
    data -= data.mean(axis=0)
    found = [run(random, data, 8, 20, None) for _ in range(200)]
    assert {(one.grad_sq_norm or 0.0) < 0 for one in found} == {True, False}
    unknown = [one for one in found if not one.identifiable]
    assert len(unknown) > 180
    assert all(one.b_noise is None and "lost in its noise" in one.reason for one in unknown)
    assert all(one.interval is not None and one.interval[0] >= 0 and one.interval[1] is None for one in unknown)


def test_noise_that_is_not_small_against_the_data_set_is_not_identifiable() -> None:
    """Forty examples, and a scale of tens: epochs over so few draw nothing like independent minibatches."""
    random = np.random.default_rng(6)
    data = gradients(random, 40, 0.35)
    assert direct(data, 40) > 10
    noise = run(random, data, 20, 200, 40)
    assert not noise.identifiable
    assert noise.b_noise is None
    assert "not small against the 40 examples" in noise.reason
    assert run(random, data, 20, 200, None).identifiable, "drawn independently there is no such limit"


@pytest.mark.parametrize("steps", [0, 1, LEAST_STEPS - 1])
def test_few_steps_are_not_enough(steps: int) -> None:
    noise = estimate_noise([Parts(1.0, 1.0)] * steps)
    assert (noise.identifiable, noise.b_noise, noise.steps) == (False, None, steps)
    assert f"at least {LEAST_STEPS}" in noise.reason


def test_no_gradient_at_all_divides_by_nothing() -> None:
    noise = estimate_noise([Parts(0.0, 0.0)] * LEAST_STEPS)
    assert not noise.identifiable
    assert noise.reason == "every gradient is 0"


def test_examples_that_are_all_alike_have_no_noise() -> None:
    noise = estimate_noise([Parts(0.0, 2.0)] * LEAST_STEPS, 100)
    assert (noise.identifiable, noise.b_noise, noise.interval) == (True, 0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("size", "example_square", "mean_square"),
    [(1, 2.0, 2.0), (4, math.inf, 1.0), (4, 1.0, math.nan), (2, 1.7e308, 0.0)],
)
def test_one_example_or_figures_that_are_not_finite_say_nothing(
    size: int, example_square: float, mean_square: float
) -> None:
    step = StepNoise(num_examples=size, example_square=example_square, mean_square=mean_square)
    assert step_parts(step, 100) is None


@pytest.mark.parametrize("seed", range(200))
def test_never_negative_and_never_out_of_its_interval(seed: int) -> None:
    """Parts of every size and sign, among them constant ones and huge ones."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.integers(-300, 300)
    spread = random.choice([0.0, 0.1, 1.0, 10.0])
    parts = [
        Parts(float(scale * abs(1 + spread * a)), float(scale * (random.choice([-0.1, 0.0, 0.3]) + spread * b)))
        for a, b in random.standard_normal((int(random.integers(8, 40)), 2))
    ]
    noise = estimate_noise(parts, int(random.integers(1, 1000)))
    assert all(value is None or math.isfinite(value) for value in (noise.b_noise, noise.tr_sigma, noise.grad_sq_norm))
    assert noise.identifiable == (noise.b_noise is not None) == (noise.reason == "")
    low, high = noise.interval or (0.0, None)
    assert low >= 0
    assert high is None or low <= high
    if noise.b_noise is not None:
        assert noise.b_noise >= 0
        assert high is not None
        assert low <= noise.b_noise <= high
