"""Does the price of a smaller minibatch hold? Ways of training by their predicted and by their measured time to a loss.

python -m scripts.benchmarks.noise_order        prints, and writes docs/results/noise_order.json

Two strategies at three minibatch sizes on mnist5k, on simulated devices of two kinds: of one the arithmetic takes the
time, of the other reading the parameters. The noise is that of the first run at the largest minibatch, as
`training.noise` measures it up to the loss in question; it gives every size its learning rate (the rule `noise`) and
its price t(b) (1 + B_noise / b). Then every size is trained over five seeds until the loss of the whole training set is
down to the target. The median number of steps times the seconds of one, of the simulated clock, is the measured time.
Pairs of ways that are predicted to lie closer than 10% are ties, as the planner has it, and have no order; counted
apart are those whose order is the same at both ends of the 95% interval of B_noise.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from partition.config import ExperimentConfig
from partition.costs.noise import NoiseEstimate, StepNoise, estimate_noise, step_parts
from partition.data.dataset import Dataset, load
from partition.data.minibatches import minibatches
from partition.plan import Search
from partition.plan.named import candidate_named
from partition.plan.progress import TIE_OF_NOISE, LearningRateRule, progress_s
from partition.runtime import Fleet
from scripts.benchmarks.replay import write_result

MINIBATCHES = (512, 128, 32)
STRATEGIES = ("whole", "pipeline-2x4-1f1b")
SEEDS = range(5)
LEARNING_RATE = 0.2
"""Of the largest minibatch."""
TARGETS = (0.5, 0.3, 0.15)
"""Losses of the training set; it begins at 2.3."""
MOST_EPOCHS = 100
DEVICES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "arithmetic": {"flop_per_s": {"default": 5e10}, "memory_bytes_per_s": 2e10},
        "memory": {"flop_per_s": {"default": 2e12}, "memory_bytes_per_s": 2e10},
    }
)


def main() -> None:
    """Measure, print, judge, write."""
    result = []
    for target in TARGETS:
        noise = measured_noise(target)
        b_noise, ends = noise.b_noise, noise.interval
        assert b_noise is not None, noise.reason
        assert ends is not None, noise.reason
        rule = LearningRateRule(name="noise", lr=LEARNING_RATE, minibatch_size=MINIBATCHES[0], b_noise=b_noise)
        steps = {size: [steps_to_target(experiment(size, rule.at(size), seed), target)[0] for seed in SEEDS]
                 for size in MINIBATCHES}  # fmt: skip
        for device in DEVICES:
            print(f"\ntarget {target}, B_noise {b_noise:.0f} ({ends}), devices limited by {device}")
            rows = [row for size in MINIBATCHES for row in price(size, rule, steps[size], device)]
            rows = [
                {"target": target, "b_noise": b_noise, "interval": ends, "limited_by": device, **row} for row in rows
            ]
            result += rows
            judge(rows)
    write_result("noise_order", "scripts/benchmarks/noise_order.py", result)


def judge(rows: list[dict[str, Any]]) -> None:
    """Print ways in the predicted order, and the pairs that are measured in another."""
    for row in sorted(rows, key=lambda row: row["predicted_progress_s"]):
        print("{minibatch_size:4} {strategy:18} lr {learning_rate:.4f}  t(b)(1 + B/b) {predicted_progress_s:8.5f} s, "
              "measured {measured_s:8.4f} s in {median_steps:.0f} steps {steps}".format(**row))  # fmt: skip
    for name, pairs in (("that are no ties", ordered_pairs(rows)), ("sure of their order", sure_pairs(rows))):
        wrong = [pair for pair in pairs if pair[0]["measured_s"] >= pair[1]["measured_s"]]
        print(f"{len(pairs)} pairs {name}, {len(wrong)} of them in another order when measured")
        for first, second in wrong:
            print(
                "  {minibatch_size} {strategy} before".format(**first), "{minibatch_size} {strategy},".format(**second),
                f"slower by {first['measured_s'] / second['measured_s'] - 1:.1%}",
            )  # fmt: skip


def sure_pairs(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs that are no ties, and that either end of B_noise's interval puts in the same order."""

    def at(row: dict[str, Any], end: int) -> float:
        # Without an upper end, nothing is sure: as for a noise without limit.
        b_noise = row["interval"][end]
        return progress_s(row["step_s"], row["minibatch_size"], 1e9 if b_noise is None else b_noise)

    return [pair for pair in ordered_pairs(rows) if all(at(pair[0], end) < at(pair[1], end) for end in (0, 1))]


def ordered_pairs(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of ways, the first predicted to be faster by more than a tie."""
    by_price = sorted(rows, key=lambda row: row["predicted_progress_s"])
    pairs = itertools.combinations(by_price, 2)
    return [
        (one, other)
        for one, other in pairs
        if other["predicted_progress_s"] > one["predicted_progress_s"] * (1 + TIE_OF_NOISE)
    ]


def price(size: int, rule: LearningRateRule, steps: list[int], device: str) -> list[dict[str, Any]]:
    """One row for each strategy: they take the same steps, to the bit, and differ in the seconds of one."""
    search = Search(experiment(size, rule.at(size), 0, device=device))
    rows = []
    for name in STRATEGIES:
        candidate = candidate_named(search, name)
        assert candidate is not None, f"{name} can be laid out"
        assert candidate.predicted is not None, f"{name} is priced"
        step_s = candidate.predicted.step_s
        rows.append(
            {
                "minibatch_size": size,
                "strategy": name,
                "learning_rate": rule.at(size),
                "step_s": step_s,
                "predicted_progress_s": progress_s(step_s, size, rule.b_noise),
                "steps": steps,
                "median_steps": statistics.median(steps),
                "measured_s": step_s * statistics.median(steps),
            }
        )
    return rows


def measured_noise(target: float) -> NoiseEstimate:
    """Of the run at the largest minibatch, up to the target."""
    config = experiment(MINIBATCHES[0], LEARNING_RATE, 0, noise=True)
    num_train = load(config).num_train
    _, noises = steps_to_target(config, target)
    return estimate_noise([one for noise in noises if (one := step_parts(noise, num_train))], num_train)


def experiment(size: int, lr: float, seed: int, *, noise: bool = False, device: str = "arithmetic") -> ExperimentConfig:
    """Two hidden layers of 256 on mnist5k, on two simulated devices."""
    of_device = {"kind": "simulated", "memory_bytes": 2**30, **DEVICES[device]}
    return ExperimentConfig.model_validate({
        "name": "noise-order",
        "model": {"in_features": 784, "hidden_features": (256, 256), "out_features": 10, "activation": "gelu"},
        "data": {"source": "mnist5k"},
        "training": {"minibatch_size": size, "epochs": MOST_EPOCHS, "seed": seed, "noise": noise},
        "optimizer": {"name": "sgd", "lr": lr},
        "cluster": {"devices": (of_device, of_device)},
        "planner": {"strategies": ("whole", "pipeline"), "num_stages": (2,), "num_microbatches": (4,),
                    "schedules": ("1f1b",)},
    })  # fmt: skip


def steps_to_target(config: ExperimentConfig, target: float) -> tuple[int, list[StepNoise]]:
    """Steps until the loss of the training set is down to the target, and what each measured of its noise."""
    search, dataset = Search(config), load(config)
    whole = candidate_named(search, "whole")
    assert whole is not None, "one device is there"
    fleet, size = Fleet(search, whole), config.training.minibatch_size
    noises: list[StepNoise] = []
    epochs = (minibatches(dataset.num_train, size, config.training.seed, epoch) for epoch in range(MOST_EPOCHS))
    for step, examples in enumerate(itertools.chain.from_iterable(epochs), start=1):
        result = fleet.train(dataset.train_x, dataset.train_y, examples)
        if result.noise is not None and len(examples) == size:
            noises.append(result.noise)
        if training_loss(fleet, dataset) <= target:
            return step, noises
    raise SystemExit(f"minibatches of {size}: loss {target} was not reached in {MOST_EPOCHS} epochs")


def training_loss(fleet: Fleet, dataset: Dataset) -> float:
    """The mean loss of all training examples."""
    logits = torch.from_numpy(np.concatenate(list(fleet.predict(dataset.train_x))))
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.asarray(dataset.train_y))))


if __name__ == "__main__":
    main()
