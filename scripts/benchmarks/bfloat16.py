"""Training in bfloat16 beside float32: loss and J = loss + penalty by epoch, seconds of a step, bytes of both kinds.

python -m scripts.benchmarks.bfloat16                          prints, and writes docs/results/bfloat16.json
python -m scripts.benchmarks.bfloat16 --no-result --epochs 2   prints only, quickly

Both formats train the network of configs/mnist.yaml on mnist5k from the same seeds, one device, four microbatches; once
more at a learning rate of 0.1, where training is hardly stable and small differences grow.
Bytes are the allocator's events: what oneDNN takes inside of a product and gives back before it returns is told apart.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.profiler import profile

from partition.config import ExperimentConfig, load_config
from partition.data.dataset import load
from partition.data.minibatches import minibatches
from partition.plan import Candidate, Search
from partition.record import Metrics
from partition.runtime import Fleet, build_module, train
from scripts.benchmarks.replay import write_result

LOSS_BOUND = 0.02
"""In every epoch, at the learning rate of the configuration."""
UNSTEADY_LR = 0.1
CONTROLS = (("bfloat16", 2), ("bfloat16", 5), ("float32", 5))
"""Number format and microbatches of runs that should differ from the others by rounding alone."""
SEEDS = (0, 1, 2)
EPOCHS = 10
MICROBATCHES = 4
LOSSES, OBJECTIVES = "losses", "objectives"
"""What is compared, as in the keys of a row. The bound is for losses."""
CANDIDATE = f"accumulate-{MICROBATCHES}"
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")
CONFIG = "configs/mnist.yaml"


class Epochs(NamedTuple):
    """Means over the steps of every epoch."""

    losses: list[float]
    objectives: list[float]
    """Of J, the loss and the penalty."""

    def named(self, number_format: str) -> dict[str, list[float]]:
        """As in a row."""
        return {f"{number_format}_{LOSSES}": self.losses, f"{number_format}_{OBJECTIVES}": self.objectives}


class Bytes(NamedTuple):
    """The peak of one training step and what was predicted."""

    predicted: int
    measured: int
    """Of all that is not scratch."""
    scratch: int
    """The most that a library held at once inside of products."""


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--no-result", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = [_seed_row(CONFIG, seed, options.epochs) for seed in SEEDS]
    compared = comparison(rows)
    print(f"mean over {len(SEEDS)} seeds, epoch by epoch:", in_words(compared["differences_of_means"]))
    print("of J in float32:", ", ".join(f"{one:.3g}" for one in _means(rows, OBJECTIVES)[0]))
    print("J, loss and penalty:", in_words(compared["objective_differences_of_means"]))
    largest = largest_difference(rows)
    print(f"at most {largest:.2%} apart in any epoch, at most {LOSS_BOUND:.0%} wanted")
    rows.append({**compared, "bound": LOSS_BOUND, "largest_difference": largest})
    rows += controls(rows[: len(SEEDS)], options.epochs)
    rows.append(unsteady(options.epochs))
    rows += [_bytes_row(CONFIG, number_format) for number_format in ("float32", "bfloat16")]
    if not options.no_result:
        write_result("bfloat16", "scripts/benchmarks/bfloat16.py", rows)


def controls(seed_rows: Sequence[dict[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """How far other runs are from float32 in the same seeds: other microbatches, and torch's autocast."""
    names = [f"{number_format}, {count} microbatches" for number_format, count in CONTROLS]
    runs = [
        [epoch_means(experiment(CONFIG, number_format, seed, epochs, count), f"accumulate-{count}")[0]
         for seed in SEEDS]
        for number_format, count in CONTROLS
    ]  # fmt: skip
    names.append("torch.autocast")
    runs.append([autocast_means(experiment(CONFIG, "float32", seed, epochs)) for seed in SEEDS])
    found = []
    for name, of_seeds in zip(names, runs, strict=True):
        pairs = [{**row, **own.named("bfloat16")} for row, own in zip(seed_rows, of_seeds, strict=True)]
        compared = comparison(pairs)
        print(f"{name}: {both_in_words(compared)}", flush=True)
        found.append({"control": name, "losses_by_seed": [own.losses for own in of_seeds], **compared})
    return found


def unsteady(epochs: int) -> dict[str, Any]:
    """How far bfloat16 is from float32 at a high learning rate."""
    rows = [_seed_row(CONFIG, seed, epochs, UNSTEADY_LR) for seed in SEEDS]
    compared = comparison(rows)
    print(f"at a learning rate of {UNSTEADY_LR}: {both_in_words(compared)}", flush=True)
    name = "bfloat16 and float32 at a learning rate"
    return {"control": name, "learning_rate": UNSTEADY_LR, "by_seed": rows, **compared}


def autocast_means(config: ExperimentConfig) -> Epochs:
    """Of the plain torch model under torch's own mixed precision."""
    dataset, model = load(config), build_module(config.model, seed=config.training.seed).to_torch()
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    optimizer = torch.optim.SGD(model.parameters(), lr=config.optimizer.lr, momentum=config.optimizer.momentum)
    found = Epochs([], [])
    for epoch in range(config.training.epochs or 1):
        losses, objectives = list[float](), list[float]()
        size, seed = config.training.minibatch_size, config.training.seed
        for examples in minibatches(dataset.num_train, size, seed, epoch):
            x_BI, targets = (torch.from_numpy(np.asarray(of)[examples]) for of in (dataset.train_x, dataset.train_y))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                o_Bq = model(x_BI)
            loss = functional.cross_entropy(o_Bq.float(), targets)
            penalty = config.model.l2_penalty / 2 * sum(weight.square().sum() for weight in weights)
            optimizer.zero_grad()
            objective = loss + penalty
            objective.backward()
            optimizer.step()
            losses.append(loss.item())
            objectives.append(objective.item())
        found.losses.append(statistics.fmean(losses))
        found.objectives.append(statistics.fmean(objectives))
    return found


def comparison(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """By how much losses and objectives differ in every epoch, averaged over seeds."""
    return {
        "differences_of_means": mean_differences(rows),
        "objective_differences_of_means": mean_differences(rows, OBJECTIVES),
    }


def both_in_words(compared: dict[str, list[float]]) -> str:
    """Losses and objectives."""
    losses, objectives = compared.values()
    return f"{in_words(losses)}; J {in_words(objectives)}"


def in_words(differences: Sequence[float]) -> str:
    """One after another, in percent."""
    return ", ".join(f"{one:+.2%}" for one in differences)


def _means(rows: Sequence[dict[str, Any]], of: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses or objectives of every epoch in float32 and in bfloat16, averaged over seeds."""
    wide, narrow = (np.mean([row[f"{one}_{of}"] for row in rows], axis=0) for one in ("float32", "bfloat16"))
    return wide, narrow


def mean_differences(rows: Sequence[dict[str, Any]], of: str = LOSSES) -> list[float]:
    """By how much the averages over seeds differ in every epoch."""
    wide, narrow = _means(rows, of)
    found: list[float] = (narrow / wide - 1).tolist()
    return found


def largest_difference(rows: Sequence[dict[str, Any]]) -> float:
    """Of all epochs."""
    return max(map(abs, mean_differences(rows)))


def epoch_means(config: ExperimentConfig, candidate_name: str = CANDIDATE) -> tuple[Epochs, float]:
    """Loss and objective of every epoch, and the median seconds of a step."""
    search, metrics = Search(config), list[Metrics]()
    dataset = load(config)
    train(search, candidate_of(search, candidate_name), dataset, metrics.append)
    per_epoch = -(-dataset.num_train // config.training.minibatch_size)
    epochs = [metrics[start : start + per_epoch] for start in range(0, len(metrics), per_epoch)]
    found = Epochs(
        losses=[statistics.fmean(one.loss for one in epoch) for epoch in epochs],
        objectives=[statistics.fmean(one.objective for one in epoch) for epoch in epochs],
    )
    return found, statistics.median(one.step_s for one in metrics[1:])


def candidate_of(search: Search, name: str) -> Candidate:
    """The candidate of this name."""
    return next(one for one in search.candidates() if one.name == name)


def experiment(
    path: str,
    number_format: str,
    seed: int,
    epochs: int,
    num_microbatches: int = MICROBATCHES,
    learning_rate: float | None = None,
) -> ExperimentConfig:
    """The network of a configuration on one CPU of any size; its learning rate unless another is given."""
    config = load_config(
        path,
        overrides=[
            f"precision.compute={number_format}",
            f"training.seed={seed}",
            f"training.epochs={epochs}",
            "cluster.devices={kind: cpu, count: 1, memory: 8 GiB}",
            f"planner={{strategies: [accumulate], num_microbatches: [{num_microbatches}]}}",
            *([] if learning_rate is None else [f"optimizer.lr={learning_rate}"]),
        ],
    )
    assert isinstance(config, ExperimentConfig), "a network, not a table"
    return config


def step_bytes(config: ExperimentConfig, candidate_name: str = CANDIDATE) -> Bytes:
    """Of two steps on one device."""
    search, dataset = Search(config), load(config)
    candidate = candidate_of(search, candidate_name)
    assert candidate.predicted is not None, "it has a layout"
    with profile(profile_memory=True) as prof:
        fleet = Fleet(search, candidate)
        for _ in range(2):
            fleet.train(dataset.train_x, dataset.train_y, np.arange(candidate.minibatch_size))
    events = sorted(
        event for root in prof.profiler.kineto_results.experimental_event_tree() for event in _events(root, "")
    )
    ours = _peak([(address, num_bytes) for _, address, num_bytes, parent in events if parent not in PRODUCTS])
    scratch = _peak([(address, num_bytes) for _, address, num_bytes, parent in events if parent in PRODUCTS])
    return Bytes(predicted=candidate.predicted.peak_bytes[0], measured=ours, scratch=scratch)


def _events(node: Any, parent: str) -> Iterator[tuple[int, int, int, str]]:
    """When, where, how many bytes (negative: given back), in which operator."""
    if node.name == "[memory]":
        yield node.start_time_ns, node.extra_fields.ptr, node.extra_fields.alloc_size, parent
    for child in node.children:
        yield from _events(child, node.name)


def _peak(events: Sequence[tuple[int, int]]) -> int:
    """The most that was allocated at once of what these events allocate."""
    ours, current, highest = set[int](), 0, 0
    for address, num_bytes in events:
        if num_bytes > 0:
            ours.add(address)
        if address in ours:
            current += num_bytes
            highest = max(highest, current)
    return highest


def _seed_row(path: str, seed: int, epochs: int, learning_rate: float | None = None) -> dict[str, Any]:
    (wide, wide_s), (narrow, narrow_s) = (
        epoch_means(experiment(path, number_format, seed, epochs, learning_rate=learning_rate))
        for number_format in ("float32", "bfloat16")
    )
    print(
        f"seed {seed}: losses {wide.losses[0]:.4f} ... {wide.losses[-1]:.4f} in float32, {narrow.losses[0]:.4f} ... "
        f"{narrow.losses[-1]:.4f} in bfloat16; {wide_s * 1e3:.0f} and {narrow_s * 1e3:.0f} ms a step",
        flush=True,
    )
    return {
        "seed": seed,
        **wide.named("float32"),
        **narrow.named("bfloat16"),
        "float32_step_s": wide_s,
        "bfloat16_step_s": narrow_s,
    }


def _bytes_row(path: str, number_format: str) -> dict[str, Any]:
    found = step_bytes(experiment(path, number_format, 0, 1))
    print(
        f"{number_format}: {found.predicted:,} bytes predicted, {found.measured - found.predicted:+,} measured, and "
        f"{found.scratch:,} of scratch within products",
        flush=True,
    )
    return {
        "number_format": number_format,
        "predicted_peak_bytes": found.predicted,
        "measured_peak_bytes": found.measured,
        "scratch_bytes": found.scratch,
    }


if __name__ == "__main__":
    main()
