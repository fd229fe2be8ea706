"""The learning rate of every step: warm-up, then constant, a line or half a cosine."""

from __future__ import annotations

import math

from partition.config import OptimizerConfig


def learning_rate_at(config: OptimizerConfig, peak: float, step: int, num_steps: int) -> float:
    """The rate of a step, counted from 1.

    It rises in a line over `warmup_steps`, to `peak` at the last of them, and falls afterwards to `lr_final` times
    `peak` at the last step: not at all (constant), in a line (linear), or along half a cosine (cosine; Loshchilov and
    Hutter 2017, without restarts).
    """
    if step <= config.warmup_steps:
        return peak * step / config.warmup_steps
    if config.lr_schedule == "constant":
        return peak
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    left = 1.0 - done if config.lr_schedule == "linear" else (1.0 + math.cos(math.pi * done)) / 2
    return peak * (config.lr_final + (1.0 - config.lr_final) * left)
