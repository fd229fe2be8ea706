"""A Hessian-vector product beside a gradient: operations predicted, seconds measured.

python -m scripts.benchmarks.curvature                    prints every network, writes docs/results/curvature.json

Both run on one CPU device through the executor, on the same microbatches; a step of training has the update of plain
SGD besides. The ratio of the times is that of the products as far as these dominate.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search
from partition.plan.curvature import CurvatureSearch
from partition.runtime import Fleet
from partition.runtime.curvature import CurvatureFleet, product_cost
from scripts.benchmarks.replay import write_result

NETWORKS = [("relu", 64, 8, 256), ("gelu", 256, 8, 512), ("tanh", 512, 6, 1024), ("gelu", 1024, 6, 1024)]
"""Activation, width, hidden layers, examples of a minibatch."""
MICROBATCHES = 4
LEAST_S, LEAST_REPEATS = 3.0, 7


def main() -> None:
    """Measure every network, print, write the result."""
    torch.set_num_threads(1)
    rows = []
    for activation, width, depth, size in NETWORKS:
        rows.append(measure(activation, width, depth, size))
        print(
            f"{activation:5}{width:6} x {depth}, {size:5} examples: {rows[-1]['flop_ratio']:5.2f} x the operations, "
            f"{rows[-1]['time_ratio']:5.2f} x the time of a gradient",
            flush=True,
        )
    write_result("curvature", "scripts/benchmarks/curvature.py", rows)


def measure(activation: str, width: int, depth: int, size: int) -> dict[str, Any]:
    """Medians of gradients and products that take turns, so that both see the same machine."""
    config = _config(activation, width, depth, size)
    name, dataset = f"accumulate-{MICROBATCHES}", load(config)
    searches = Search(config), CurvatureSearch(config)
    of_training, of_product = (next(one for one in search.candidates() if one.name == name) for search in searches)
    training, product = Fleet(searches[0], of_training), CurvatureFleet(searches[1], of_product)
    product.draw_directions(1)
    examples, step_s, product_s = np.arange(size), list[float](), list[float]()
    while len(step_s) < LEAST_REPEATS or sum(step_s) + sum(product_s) < LEAST_S:
        training._ended_s = None  # a step's seconds are counted from the end of the one before
        step_s.append(training.train(dataset.train_x, dataset.train_y, examples).step_s)
        product_s.append(product.product(dataset.train_x, dataset.train_y, examples))
    cost = product_cost(product, statistics.median(product_s[1:]))
    gradient_s = statistics.median(step_s[1:])
    return {
        "activation": activation,
        "width": width,
        "hidden_layers": depth,
        "minibatch_size": size,
        "num_microbatches": MICROBATCHES,
        "gradient_flop": cost.gradient_flop,
        "product_flop": cost.product_flop,
        "flop_ratio": cost.flop_ratio,
        "gradient_s": gradient_s,
        "product_s": cost.measured_s,
        "time_ratio": cost.measured_s / gradient_s,
    }


def _config(activation: str, width: int, depth: int, size: int) -> ExperimentConfig:
    device = {"kind": "cpu", "memory_bytes": 4 * 2**30, "flop_per_s": {"default": 1e11}, "memory_bytes_per_s": 1e10}
    return ExperimentConfig.model_validate({
        "name": "curvature",
        "model": {"in_features": width, "hidden_features": (width,) * depth, "out_features": 10,
                  "activation": activation},
        "data": {"source": "synthetic", "num_examples": 2 * size},
        "training": {"minibatch_size": size, "steps": 1},
        "optimizer": {"name": "sgd", "lr": 1e-6},
        "cluster": {"devices": (device,)},
        "planner": {"num_microbatches": (MICROBATCHES,)},
    })  # fmt: skip


if __name__ == "__main__":
    main()
