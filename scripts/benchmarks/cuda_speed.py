"""A training step on one GPU beside the same step by automatic differentiation, and beside its matrix products alone.

python -m scripts.benchmarks.cuda_speed        prints, and writes docs/results/cuda_speed.json

The floor of a step are its matrix products: forward, input gradient (not of the first layer) and weight gradient,
back to back on buffers that lie ready. Each of the three ways takes turns, from the same parameters on the same rows,
which lie on the host. Without a GPU it says so and does nothing.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.plan import Search
from partition.runtime import Fleet, build_module
from scripts.benchmarks.replay import describe_machine, write_result
from scripts.cuda_costs import describe_gpu

CASES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"small": (6, 256, 500), "mnist": (6, 1024, 500), "large": (8, 4096, 8192)}
)
"""Hidden layers, their width, examples of the minibatch."""
FORMATS = ("float32", "bfloat16")
ROUNDS, STEPS = 3, 8


def main() -> None:
    """Every case in every number format."""
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing was measured, nothing was written")
        return
    rows = []
    for name in CASES:
        for number_format in FORMATS:
            rows.append(measure(name, number_format, torch.device("cuda:0")))
            print("{case:6} {number_format:9} step {step_ms:8.3f} ms, autograd {autograd_ms:8.3f} ms, products "
                  "{products_ms:8.3f} ms; peak {peak_bytes:,} bytes, autograd {autograd_peak_bytes:,}"
                  .format(**rows[-1]), flush=True)  # fmt: skip
    write_result("cuda_speed", "scripts/benchmarks/cuda_speed.py", rows, describe_machine() | describe_gpu())


def measure(name: str, number_format: str, device: torch.device) -> dict[str, Any]:
    """One case: medians of the ways in turn, and the peaks of both that train."""
    config = experiment(*CASES[name], number_format)
    dataset = load(config)
    ways = {
        "step": lambda: ours(config, dataset),
        "autograd": lambda: autograd(config, dataset, device),
        "products": lambda: products(config, device),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, int] = {}
    for _ in range(ROUNDS):
        for way, prepare in ways.items():
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            seconds[way] += _timed(prepare())
            peaks[way] = torch.cuda.max_memory_allocated()
    return {
        "case": name,
        "number_format": number_format,
        "features": list(config.model.features),
        "minibatch_size": config.training.minibatch_size,
        **{f"{way}_ms": 1000 * statistics.median(of) for way, of in seconds.items()},
        **{f"{way}_quartiles_ms": [1000 * one for one in statistics.quantiles(of, n=4)[::2]]
           for way, of in seconds.items()},
        "peak_bytes": peaks["step"],
        "autograd_peak_bytes": peaks["autograd"],
    }  # fmt: skip


def experiment(depth: int, width: int, minibatch_size: int, number_format: str) -> ExperimentConfig:
    """A network of equal hidden layers on one GPU, with parameters in float32."""
    return ExperimentConfig.model_validate({
        "name": "cuda-speed",
        "model": {"in_features": 256, "hidden_features": (width,) * depth, "out_features": 10, "activation": "gelu"},
        "precision": {"parameters": "float32", "compute": number_format},
        "data": {"source": "synthetic", "num_examples": minibatch_size + 2},
        "training": {"minibatch_size": minibatch_size, "steps": 1},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        "cluster": {"devices": ({"name": "H100-SXM-80GB"},)},
        "planner": {"strategies": ("whole",)},
    })  # fmt: skip


def ours(config: ExperimentConfig, dataset: Dataset) -> Callable[[], object]:
    """A step of the plan `whole`."""
    search = Search(config)
    fleet = Fleet(search, search.candidates()[0])
    examples = np.arange(config.training.minibatch_size) % dataset.num_train
    return lambda: fleet.train(dataset.train_x, dataset.train_y, examples)


def autograd(config: ExperimentConfig, dataset: Dataset, device: torch.device) -> Callable[[], object]:
    """The same step as a person writes it in torch: rows by way of pinned memory, the loss and the norm looked at."""
    module = build_module(config.model, config.training.seed).to_torch().to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    is_mixed = config.precision.compute == "bfloat16"
    examples = np.arange(config.training.minibatch_size) % dataset.num_train
    every = [torch.from_numpy(np.asarray(of)) for of in (dataset.train_x, dataset.train_y)]
    indices = torch.from_numpy(examples)

    def rows(of: torch.Tensor) -> torch.Tensor:
        pinned = torch.empty((len(indices), *of.shape[1:]), dtype=of.dtype, pin_memory=True)
        return torch.index_select(of, 0, indices, out=pinned).to(device, non_blocking=True)

    def step() -> None:
        x_BI, y_B = map(rows, every)
        with torch.autocast("cuda", torch.bfloat16, enabled=is_mixed):
            outputs = module(x_BI)
        loss = torch.nn.functional.cross_entropy(outputs.float(), y_B)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([one.grad for one in module.parameters() if one.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
        torch.stack([loss.detach(), norm]).tolist()

    return step


def products(config: ExperimentConfig, device: torch.device) -> Callable[[], object]:
    """The matrix products of a step, and nothing else."""
    dtype = getattr(torch, config.precision.compute)
    features, size = config.model.features, config.training.minibatch_size
    random = [torch.randn(size, width, device=device, dtype=dtype) for width in features]
    weights = [torch.randn(o, i, device=device, dtype=dtype) for i, o in pairwise(features)]
    grads = [torch.empty_like(weight) for weight in weights]
    outs = [torch.empty_like(one) for one in random]

    def step() -> None:
        for index, weight in enumerate(weights):
            torch.mm(random[index], weight.t(), out=outs[index + 1])
        for index, weight in reversed(list(enumerate(weights))):
            torch.mm(random[index + 1].t(), random[index], out=grads[index])
            if index:
                torch.mm(random[index + 1], weight, out=outs[index])
        torch.cuda.synchronize(device)

    return step


def _timed(step: Callable[[], object]) -> list[float]:
    """Seconds of steps after three that warm up."""
    for _ in range(3):
        step()
    seconds = []
    for _ in range(STEPS):
        start_s = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start_s)
    return seconds


if __name__ == "__main__":
    main()
