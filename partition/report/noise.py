"""Gradient noise as a person reads it: of a run, and as a comparison was given it."""

from __future__ import annotations

from collections.abc import Sequence

from partition.costs import GradientNoise, NoiseEstimate


def noise_text(noise: NoiseEstimate | GradientNoise) -> str:
    """B_noise with its interval, or why there is none."""
    of = f"over {noise.steps} step{'' if noise.steps == 1 else 's'}"
    if noise.b_noise is None:
        return f"Gradient noise: not identifiable {of}: {noise.reason}{_bounds(noise.interval)}"
    return f"Gradient noise: B_noise {_figure(noise.b_noise)}{_bounds(noise.interval)} {of}"


def given_noise_text(noise: GradientNoise, differences: Sequence[str], minibatch_size: int) -> str:
    """The noise that a comparison was given, and what keeps it from saying more."""
    lines = [f"{noise_text(noise)}, on minibatches of {noise.minibatch_size}, {noise.optimizer} at "
             f"{noise.learning_rate:g}"]  # fmt: skip
    if noise.b_noise is not None and noise.optimizer == "sgd":
        factor = 1 + noise.b_noise / minibatch_size
        rate = "at a learning rate made for it"
        lines.append(
            f"A minibatch of {minibatch_size} takes {factor:.3g} times the steps that a very large one would, {rate}."
        )
    if noise.optimizer != "sgd":
        lines.append(f"That a minibatch of b takes 1 + B_noise / b as many steps holds for sgd, not {noise.optimizer}.")
    if differences:
        lines.append(f"It was measured on another experiment: {'; '.join(differences)}.")
    return "\n".join(lines)


def _bounds(interval: tuple[float, float | None] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f" (95%: {_figure(low)} to {_figure(high)})" if high is not None else f" (95%: above {_figure(low)})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
