"""What measuring gradient noise adds to a step, and how its estimate compares with the data set's own along a run.

python -m scripts.benchmarks.noise                         prints, and writes docs/results/noise.json
python -m scripts.benchmarks.noise --no-result --pairs 5   prints only, quickly

Overheads are of pairs of steps, one with and one without in turn, in seconds of one core, so that a busy machine has
little part in them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from partition.config import ExperimentConfig
from partition.costs.noise import Parts, StepNoise, estimate_noise, step_parts
from partition.data.dataset import Dataset, load
from partition.data.minibatches import minibatches
from partition.plan import Search
from partition.runtime import Fleet
from scripts.benchmarks.replay import write_result

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERHEAD_BOUND = 0.05
PAIRS = 40
CASES = (
    # width, depth, minibatch, microbatches, penalty, activation
    (1024, 6, 500, 1, 1e-4, "gelu"),
    (1024, 6, 500, 1, 0.0, "relu"),
    (1024, 6, 500, 8, 1e-4, "gelu"),
    (1024, 6, 128, 1, 1e-4, "gelu"),
    (1024, 6, 64, 1, 1e-4, "gelu"),
    (256, 6, 500, 1, 1e-4, "gelu"),
)
WIDTH = 1024
"""Of the cases that the bound is for."""
RUN_STEPS, WINDOW, RUN_MINIBATCH = 512, 64, 64


def main() -> None:
    """Measure, print, judge the cases of width 1024, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--no-result", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [overhead(*case, pairs=options.pairs) for case in CASES]
    for row in rows:
        print(
            f"{row['depth']} x {row['width']:4} {row['activation']:4} penalty {row['l2_penalty']:g}, "
            f"{row['num_microbatches']} x {row['minibatch_size'] // row['num_microbatches']:3}: "
            f"{row['step_s'] * 1e3:7.1f} ms, {row['overhead']:+.1%} with noise",
            flush=True,
        )
    worst = max(row["overhead"] for row in rows if row["width"] == WIDTH)
    print(f"worst at width {WIDTH}: {worst:.1%}, at most {OVERHEAD_BOUND:.0%} wanted")
    rows += along_a_run()
    if not options.no_result:
        write_result("noise", "scripts/benchmarks/noise.py", rows)


def build_config(
    width: int, depth: int, minibatch_size: int, l2_penalty: float, activation: str, *, noise: bool, lr: float = 1e-3
) -> ExperimentConfig:
    """A network on mnist5k on one CPU."""
    device = {"kind": "simulated", "memory_bytes": 2**33, "flop_per_s": {"default": 1e11}, "memory_bytes_per_s": 1e10}
    return ExperimentConfig.model_validate(
        {
            "name": "noise",
            "model": {
                "in_features": 784,
                "hidden_features": (width,) * depth,
                "out_features": 10,
                "activation": activation,
                "l2_penalty": l2_penalty,
            },
            "data": {"source": "mnist5k"},
            "training": {"minibatch_size": minibatch_size, "noise": noise},
            "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9 if lr < 1e-2 else 0.0},
            "cluster": {"devices": (device,)},
        }
    )


def build_fleet(config: ExperimentConfig, num_microbatches: int) -> Fleet:
    """One device, so many microbatches."""
    planner = config.planner.model_copy(
        update={"strategies": ("whole", "accumulate"), "num_microbatches": (num_microbatches,)}
    )
    search = Search(config.model_copy(update={"planner": planner}))
    name = "whole" if num_microbatches == 1 else f"accumulate-{num_microbatches}"
    return Fleet(search, next(one for one in search.candidates() if one.name == name))


def overhead(
    width: int,
    depth: int,
    minibatch_size: int,
    num_microbatches: int,
    l2_penalty: float,
    activation: str,
    *,
    pairs: int,
) -> dict[str, Any]:
    """Median step without noise, and the median over pairs of how much longer one with noise takes."""
    fleets = []
    for noise in (False, True):
        config = build_config(width, depth, minibatch_size, l2_penalty, activation, noise=noise)
        fleets.append(build_fleet(config, num_microbatches))
    dataset = load(fleets[0].search.config)
    examples = np.arange(minibatch_size)
    plain, ratios = [], []
    for number in range(pairs + 2):
        seconds = {}
        for index in (0, 1) if number % 2 else (1, 0):
            seconds[index] = _step_s(fleets[index], dataset, examples)
        if number >= 2:
            plain.append(seconds[0])
            ratios.append(seconds[1] / seconds[0])
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "width": width,
        "depth": depth,
        "activation": activation,
        "l2_penalty": l2_penalty,
        "minibatch_size": minibatch_size,
        "num_microbatches": num_microbatches,
        "pairs": pairs,
        "step_s": statistics.median(plain),
        "overhead": statistics.median(ratios) - 1,
        "overhead_quartiles": [quarters[0] - 1, quarters[-1] - 1],
    }


def _step_s(fleet: Fleet, dataset: Dataset, examples: NDArray[np.int64]) -> float:
    start_s = time.process_time()
    fleet.train(dataset.train_x, dataset.train_y, examples)
    return time.process_time() - start_s


def along_a_run() -> list[dict[str, Any]]:
    """Windows of steps of a run: the estimate beside the mean of the data set's own tr(Sigma) and |g|^2 over them."""
    config = build_config(256, 2, RUN_MINIBATCH, 1e-4, "gelu", noise=True, lr=0.05)
    fleet, dataset = build_fleet(config, 1), load(config)
    exact = _Exact(config, dataset)
    rows: list[dict[str, Any]] = []
    parts: list[Parts] = []
    own: list[Parts] = []
    batches = [one for epoch in range(20) for one in minibatches(dataset.num_train, RUN_MINIBATCH, 0, epoch)]
    for step, examples in enumerate(batches[:RUN_STEPS], start=1):
        if step % 4 == 1:
            own.append(exact.parts(fleet))
        noise = fleet.train(dataset.train_x, dataset.train_y, examples).noise
        assert noise is not None
        one = step_parts(noise, dataset.num_train)
        if one and len(examples) == RUN_MINIBATCH:
            parts.append(one)
        if step % WINDOW == 0:
            estimate = estimate_noise(parts, dataset.num_train)
            truth = sum(one.tr_sigma for one in own) / sum(one.grad_sq_norm for one in own)
            rows.append({"steps": [step - WINDOW + 1, step], "b_noise": estimate.b_noise,
                         "interval": estimate.interval, "of_the_data_set": truth})  # fmt: skip
            told = "not identifiable" if estimate.b_noise is None else f"{estimate.b_noise:.0f}"
            print(f"steps {step - WINDOW + 1:3} to {step:3}: B_noise {told} {estimate.interval}, directly {truth:.0f}")
            parts, own = [], []
    return rows


class _Exact:
    """tr(Sigma) and |g|^2 over the whole training set, by a step of a second fleet that changes nothing."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset) -> None:
        size = dataset.num_train
        training = config.training.model_copy(update={"minibatch_size": size})
        self._fleet = build_fleet(config.model_copy(update={"training": training}), 8)
        self._dataset, self._examples = dataset, np.arange(size)

    def parts(self, fleet: Fleet) -> Parts:
        """At the parameters of another fleet."""
        with torch.no_grad():
            for mine, its in zip(self._fleet.parameters(), fleet.parameters(), strict=True):
                mine.copy_(its)
        result = self._fleet.train(self._dataset.train_x, self._dataset.train_y, self._examples, learning_rate=0.0)
        noise: StepNoise | None = result.noise
        assert noise is not None
        parts = step_parts(noise, self._dataset.num_train)
        assert parts is not None
        return parts


if __name__ == "__main__":
    main()
