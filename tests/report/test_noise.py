"""Gradient noise in words."""

from __future__ import annotations

from typing import Any

import pytest

from partition.costs import GradientNoise
from partition.report.noise import given_noise_text, noise_text

KNOWN: dict[str, Any] = {
    "identifiable": True,
    "b_noise": 312.4,
    "interval": (250.0, 400.2),
    "tr_sigma": 312.4,
    "grad_sq_norm": 1.0,
    "steps": 120,
    "minibatch_size": 64,
    "num_examples": 4000,
    "learning_rate": 0.05,
    "optimizer": "sgd",
    "data_source": "mnist5k",
    "model": {},
}


def noise(**changes: Any) -> GradientNoise:
    return GradientNoise.model_validate({**KNOWN, **changes})


def test_a_known_noise_stands_with_its_interval() -> None:
    assert noise_text(noise()) == "Gradient noise: B_noise 312 (95%: 250 to 400) over 120 steps"
    small = noise(b_noise=0.123456, interval=(0.0, 1.5))
    assert noise_text(small) == "Gradient noise: B_noise 0.123 (95%: 0 to 1.5) over 120 steps"


@pytest.mark.parametrize(
    ("interval", "bounds"), [(None, ""), ((250.0, None), " (95%: above 250)"), ((2.0, 5.0), " (95%: 2 to 5)")]
)
def test_an_unknown_one_says_why_and_what_is_known(interval: tuple[float, float | None] | None, bounds: str) -> None:
    unknown = noise(identifiable=False, reason="too noisy", b_noise=None, interval=interval)
    assert noise_text(unknown) == f"Gradient noise: not identifiable over 120 steps: too noisy{bounds}"


def test_a_comparison_says_what_the_noise_means_for_its_minibatch() -> None:
    text = given_noise_text(noise(), [], 312)
    assert "on minibatches of 64, sgd at 0.05" in text
    assert "A minibatch of 312 takes 2 times the steps" in text
    assert len(text.splitlines()) == 2


def test_an_unknown_noise_promises_nothing() -> None:
    unknown = noise(identifiable=False, reason="too noisy", b_noise=None, interval=None)
    assert "times the steps" not in given_noise_text(unknown, [], 312)


def test_the_limits_are_told() -> None:
    text = given_noise_text(noise(optimizer="adam"), ["data mnist5k, here digits"], 312)
    assert "holds for sgd, not adam" in text
    assert text.endswith("It was measured on another experiment: data mnist5k, here digits.")
    assert "times the steps that" not in text


def test_one_step_is_one_step() -> None:
    unknown = noise(identifiable=False, reason="too few", b_noise=None, interval=None, steps=1)
    assert noise_text(unknown) == "Gradient noise: not identifiable over 1 step: too few"
