"""Memory and time on one CUDA GPU: predicted beside measured.

python -m scripts.cuda_costs                       prints, and writes docs/results/cuda_costs.json
python -m scripts.cuda_costs --fraction 0.1        a tenth of the experiments, to try it out

Five parts, each with the bound that it is held to:

    context   what the driver takes of the GPU outside torch's allocator, once it has trained: for `cluster.context`
    memory    predicted peak against torch.cuda.max_memory_allocated: never below it, at most 0.5% above
    largest   the largest minibatch that is predicted to fit a fraction of the GPU, against the largest that runs: 1%
    limit     plans near the limit, the default headroom left, run 50 steps without running out of memory
    time      the step of such plans, priced by costs measured just before, against the measured one: 5%

Experiments of one part share processes, whose allocator is emptied between them; those of `time` run alone. Without a
GPU it says so and does nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from partition.config.cluster import DEFAULT_HEADROOM
from scripts.benchmarks.replay import describe_machine, write_result

EXPERIMENTS = {"memory": 30, "largest": 5, "limit": 50, "time": 6}
PROCESSES = {"memory": 3, "largest": 5, "limit": 7, "time": 1}
"""At once, each with a part of the experiments."""
TIMED = "time"
"""The part whose process has the GPU for itself."""
LIMIT_STEPS = 50
LIMIT_BYTES = 2 * 2**30
"""The fraction of the GPU for all but `memory`: enough for activations to outweigh parameters, soon filled."""
PROFILE_S = 4.0
MOST_EXAMPLES = 2**24
ABOVE, LARGEST_ERROR, TIME_ERROR = 0.005, 0.01, 0.05
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"name": "sgd", "lr": 0.01},
    {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    {"name": "adam", "lr": 0.001},
    {"name": "adamw", "lr": 0.001},
)
ASSUMED_RATES = {"flop_per_s": {"default": 5e13}, "memory_bytes_per_s": 2e12}
"""Of a GPU that is in no data sheet: times are then no prediction, and the table says so."""


def main() -> None:
    """Measure every part, or some experiments of one if they are given."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the experiments that are run, at least one")
    parser.add_argument("--part", choices=tuple(EXPERIMENTS), help="this part alone; nothing is written")
    parser.add_argument("--seeds", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing was measured, nothing was written")
        return
    if options.seeds:
        for row in measure_part(options.part, options.seeds, _gpu()):
            print(json.dumps(row), flush=True)
        return
    rows = [{"part": "context", "context_bytes": context_bytes()}]
    counts = {part: max(1, round(options.fraction * count)) for part, count in EXPERIMENTS.items()}
    wanted = [part for part in EXPERIMENTS if options.part in (None, part)]
    for together in ([part for part in wanted if part != TIMED], [part for part in wanted if part == TIMED]):
        if together:
            rows += measure_apart({part: counts[part] for part in together})
    for line in summary(rows):
        print(line)
    if options.part is None and options.fraction >= 1:
        write_result("cuda_costs", "scripts/cuda_costs.py", rows, describe_machine() | describe_gpu())


def measure_part(part: str, seeds: Sequence[int], device: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each experiment of a part; one that ends in an error says so, and the next one is tried."""
    for seed in seeds:
        row: dict[str, Any] = {"part": part, "seed": seed}
        try:
            yield row | _MEASURES[part](seed, device)
        except Exception as error:
            yield row | {"error": f"{type(error).__name__}: {error}"}


# What is measured


def measure_memory(seed: int, device: dict[str, Any]) -> dict[str, Any]:
    """A few steps of a random experiment: the predicted peak and the allocator's."""
    config = experiment(seed, device, minibatch_size=random.Random(seed).choice([100, 1000, 5000]))
    predicted, measured, _ = run(config, 3)
    return {
        "experiment": describe(config),
        "predicted_bytes": predicted.peak_bytes[0],
        "measured_bytes": measured,
    }


def measure_largest(seed: int, device: dict[str, Any]) -> dict[str, Any]:
    """The largest minibatch that is predicted to fit, and the largest that runs, in a fraction of the GPU."""
    device = limited(device)
    predicted = largest(lambda size: is_feasible(experiment(seed, device, size)), 1)
    # On a GPU the allocator is to stop it, not the ledger.
    roomy = {**device, "memory_bytes": 2**40} if device["kind"] == "cuda" else device
    measured = largest(lambda size: does_run(experiment(seed, roomy, size)), predicted)
    return {
        "experiment": describe(experiment(seed, device, max(predicted, 1))),
        "predicted_minibatch": predicted,
        "measured_minibatch": measured,
    }


def measure_limit(seed: int, device: dict[str, Any]) -> dict[str, Any]:
    """Fifty steps of a plan that takes 90 to 100% of what may be planned with in a fraction of the GPU."""
    import torch

    config = near_limit(seed, limited(device) | {"headroom": DEFAULT_HEADROOM})
    predicted, measured, steps_s = run(config, LIMIT_STEPS)
    reserved = torch.cuda.max_memory_reserved() if device["kind"] == "cuda" else measured
    return {
        "experiment": describe(config),
        "predicted_bytes": predicted.peak_bytes[0],
        "measured_bytes": measured,
        "predicted_reserved_bytes": predicted.reserved_bytes[0],
        "measured_reserved_bytes": reserved,
        "share_of_limit": predicted.peak_bytes[0] / allocatable_bytes(config),
        "num_steps": len(steps_s),
    }


def measure_time(seed: int, device: dict[str, Any]) -> dict[str, Any]:
    """A plan near the limit, profiled and then run."""
    from partition.runtime.measuring import measure

    config = near_limit(seed, {**device, "memory_bytes": LIMIT_BYTES})
    costs = measure(config, PROFILE_S)
    assert costs is not None, "the only process has the costs"
    _empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "costs.json"
        path.write_text(costs.model_dump_json())
        planner = config.planner.model_copy(update={"costs": str(path)})
        predicted, _, steps_s = run(config.model_copy(update={"planner": planner}), LIMIT_STEPS)
    return {
        "experiment": describe(config),
        "predicted_step_s": predicted.step_s,
        "measured_step_s": statistics.median(steps_s[5:]),
        "measured_quartiles_s": statistics.quantiles(steps_s[5:], n=4)[::2],
    }


def near_limit(seed: int, device: dict[str, Any]) -> Any:
    """An experiment that takes 90 to 100% of what the device may give."""
    most = largest(lambda size: is_feasible(experiment(seed, device, size)), 1)
    return experiment(seed, device, max(1, int(most * random.Random(seed).uniform(0.92, 1.0))))


_MEASURES: dict[str, Callable[[int, dict[str, Any]], dict[str, Any]]] = {
    "memory": measure_memory,
    "largest": measure_largest,
    "limit": measure_limit,
    "time": measure_time,
}


# Experiments and runs


def experiment(seed: int, device: dict[str, Any], minibatch_size: int) -> Any:
    """A random experiment on one device, whole or with accumulation; the same network for every minibatch."""
    from partition.config import ExperimentConfig

    choose = random.Random(seed)
    depth, width = choose.randint(1, 12), choose.choice([256, 500, 1024])
    optimizer, number_format = choose.choice(OPTIMIZERS), choose.choice(["float32", "float32", "float64"])
    headroom = device.get("headroom", 0.0)
    device = {key: of for key, of in device.items() if key not in _NOT_OF_DEVICE}
    cluster = {"headroom": headroom, "context_bytes": 0} if device["kind"] == "cuda" else {}
    return ExperimentConfig.model_validate({
        "name": f"seed-{seed}",
        "model": {
            "in_features": choose.choice([64, 128]),
            "hidden_features": tuple(choose.randint(width // 2, width) for _ in range(depth)),
            "out_features": choose.choice([1, 10, 100]),
            "activation": choose.choice(["identity", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu"]),
            "bias": choose.random() < 0.7,
            "l2_penalty": choose.choice([0.0, 1e-4]),
            "loss": choose.choice(["cross_entropy", "mse"]),
        },
        "precision": {"parameters": number_format, "compute": number_format},
        "data": {"source": "synthetic", "num_examples": minibatch_size + 2},
        "training": {"minibatch_size": minibatch_size, "steps": 1},
        "optimizer": optimizer,
        "cluster": {"devices": (device,), **cluster},
        "planner": {"strategies": ("whole",)},
    })  # fmt: skip


_NOT_OF_DEVICE = ("total_bytes", "headroom")


def limited(device: dict[str, Any]) -> dict[str, Any]:
    """The device with a fraction of its memory, which torch's allocator then keeps to."""
    import torch

    if device["kind"] == "cuda":
        torch.cuda.set_per_process_memory_fraction(LIMIT_BYTES / device["total_bytes"], 0)
    return {**device, "memory_bytes": LIMIT_BYTES}


def whole(config: Any) -> tuple[Any, Any]:
    """The planner and its candidate."""
    from partition.plan import Search

    search = Search(config)
    return search, search.candidates()[0]


def is_feasible(config: Any) -> bool:
    """Whether the planner says that it fits."""
    return bool(whole(config)[1].feasible)


def allocatable_bytes(config: Any) -> int:
    """What the planner may fill."""
    return int(whole(config)[0].cluster.devices[0].memory_bytes)


def does_run(config: Any) -> bool:
    """Whether two steps run."""
    import torch

    from partition.errors import DeviceMemoryError, RunError

    try:
        run(config, 2)
    except (torch.OutOfMemoryError, DeviceMemoryError, RunError):
        return False
    return True


def largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest size that fits, 0 where none does; sizes that fit are all below those that do not."""
    low, high = 0, max(1, start)
    while high <= MOST_EXAMPLES and fits(high):
        low, high = high, high + max(1, high // 50) if start > 1 else 2 * high
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def run(config: Any, num_steps: int) -> tuple[Any, int, list[float]]:
    """Steps of the whole minibatch on one device: the prediction, the peak, the seconds of each step."""
    import numpy as np

    from partition.data.dataset import load
    from partition.runtime import Fleet

    _empty_cache()
    search, candidate = whole(config)
    dataset = load(config)
    # In the order of no file, as training has them: where a host looks for rows takes part of a step.
    size = config.training.minibatch_size
    examples = np.random.default_rng(0).permutation(size) % dataset.num_train
    fleet = Fleet(search, candidate)
    seconds = [
        fleet.train(dataset.train_x, dataset.train_y, examples, upcoming=examples).step_s for _ in range(num_steps)
    ]
    return candidate.predicted, fleet.workers[0].device.measured_peak_bytes, seconds


def _empty_cache() -> None:
    """What ran before is gone, workspaces too, and the allocator starts anew, as in a fresh process."""
    import torch

    from partition.ops import sums

    gc.collect()
    if torch.cuda.is_available():
        torch._C._cuda_clearCublasWorkspaces()  # there is no public name for it
        sums.ones.cache_clear()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def describe(config: Any) -> dict[str, Any]:
    """What distinguishes one experiment from another."""
    model = config.model
    return {
        "features": list(model.features),
        "activation": model.activation,
        "loss": model.loss,
        "bias": model.bias,
        "l2_penalty": model.l2_penalty,
        "number_format": config.precision.compute,
        "optimizer": config.optimizer.name,
        "momentum": config.optimizer.momentum,
        "minibatch_size": config.training.minibatch_size,
    }


# The GPU


def _gpu() -> dict[str, Any]:
    """The first GPU as a device of an experiment, with the rates of its data sheet where it is in one."""
    import torch

    from partition.costs.hardware import _data_sheets

    name = torch.cuda.get_device_name(0)
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    words = {word for word in name.replace("-", " ").split() if any(letter.isdigit() for letter in word)}
    sheet = next((one for one in _data_sheets() if set(one.split("-")[:2]) & words), None)
    rates = {"name": sheet} if sheet else ASSUMED_RATES
    return {"kind": "cuda", "memory_bytes": total_bytes, "total_bytes": total_bytes, **rates}


def context_bytes() -> int:
    """What of the GPU is neither free nor the allocator's, other programs' part included."""
    import torch

    run(experiment(0, _gpu(), 1000), 2)
    torch.cuda.synchronize()
    free_bytes, total_bytes = torch.cuda.mem_get_info(0)
    return int(total_bytes - free_bytes - torch.cuda.memory_reserved(0))


def describe_gpu() -> dict[str, Any]:
    """The first GPU, and the libraries that use it."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    workspace = getattr(torch.backends.cuda, "cublas_workspace_size", None)  # torch 2.13 has it
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_bytes": properties.total_memory,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cublas_workspace_bytes": workspace() if workspace else None,
    }


def measure_apart(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The rows of parts with so many experiments, from processes at once that each measure some of one part."""
    shares = [
        (part, range(count)[first :: PROCESSES[part]])
        for part, count in counts.items()
        for first in range(min(count, PROCESSES[part]))
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(shares)))}
    command = [sys.executable, "-m", "scripts.cuda_costs", "--part"]
    running = [
        subprocess.Popen(
            [*command, part, "--seeds", *map(str, seeds)], env=environment, text=True, stdout=subprocess.PIPE
        )
        for part, seeds in shares
    ]
    rows: list[dict[str, Any]] = []
    for (part, seeds), process in zip(shares, running, strict=True):
        output, _ = process.communicate()
        print(output, end="", flush=True)
        told = [json.loads(line) for line in output.splitlines()]
        ended = f"the process ended with code {process.returncode}"
        rows += told + [{"part": part, "seed": seed, "error": ended} for seed in seeds[len(told) :]]
    return sorted(rows, key=lambda row: (list(counts).index(row["part"]), row["seed"]))


# What it comes to


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each part: how many experiments keep its bound, and the worst of them."""
    failed = [row for row in rows if "error" in row]
    memory = [row["predicted_bytes"] / row["measured_bytes"] - 1 for row in rows if "predicted_bytes" in row]
    limit = [row for row in rows if row["part"] == "limit"]
    ended = sum(row.get("num_steps") == LIMIT_STEPS for row in limit)
    sizes = [row["predicted_minibatch"] / max(1, row["measured_minibatch"]) - 1
             for row in rows if "predicted_minibatch" in row]  # fmt: skip
    times = [row["predicted_step_s"] / row["measured_step_s"] - 1
             for row in rows if "predicted_step_s" in row]  # fmt: skip
    return [
        _line("memory, never below and at most 0.5% above", memory, 0.0, ABOVE),
        _line("largest minibatch, within 1%", sizes, -LARGEST_ERROR, LARGEST_ERROR),
        f"plans near the limit that ran {LIMIT_STEPS} steps: {ended} of {len(limit)}",
        _line("step near the limit, within 5%", times, -TIME_ERROR, TIME_ERROR),
        "; ".join([f"runs that failed: {len(failed)}", *("{part} {seed}: {error}".format(**row) for row in failed)]),
    ]


def _line(what: str, errors: Sequence[float], least: float, most: float) -> str:
    if not errors:
        return f"{what}: nothing measured"
    kept = sum(least <= error <= most for error in errors)
    return f"{what}: {kept} of {len(errors)}, from {min(errors):+.2%} to {max(errors):+.2%}"


if __name__ == "__main__":
    main()
