"""The training loop: epochs over shuffled minibatches, metrics of every step, an evaluation at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset
from partition.data.minibatches import minibatches
from partition.data.rows import read_all
from partition.errors import RunError
from partition.plan import Candidate, Search
from partition.record import DeviceBytes, Final, Metrics, StepTime, Summary
from partition.record.run import SCHEMA_VERSION, median_step_s
from partition.runtime.workers import Fleet, StepResult


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its summary and the fleet with the trained parameters."""

    summary: Summary
    fleet: Fleet


def num_steps(config: ExperimentConfig, num_train: int, minibatch_size: int) -> int:
    """Optimizer steps of a run."""
    if config.training.steps is not None:
        return config.training.steps
    return (config.training.epochs or 1) * math.ceil(num_train / minibatch_size)


def train(search: Search, candidate: Candidate, dataset: Dataset, observe: Callable[[Metrics], None]) -> Result:
    """Train a candidate and evaluate it; `observe` sees the metrics of every step as they come.

    Raises DeviceMemoryError where a device runs out, RunError where the loss is not finite.
    """
    config = search.config
    fleet = Fleet(search, candidate)
    total = num_steps(config, dataset.num_train, candidate.minibatch_size)
    start_s, metrics = time.perf_counter(), []
    whole_s: list[float] = []  # of the steps on a whole minibatch, which the prediction is for
    for step, examples in zip(range(1, total + 1), _examples(config, candidate, dataset.num_train), strict=False):
        result = fleet.train(dataset.train_x, dataset.train_y, examples)
        metrics.append(_metrics(step, result, len(examples)))
        _check_finite(metrics[-1], candidate)
        if len(examples) == candidate.minibatch_size:
            whole_s.append(result.step_s)
        observe(metrics[-1])
    wall_s = time.perf_counter() - start_s
    final = evaluate(fleet, dataset, config, _last_epoch_loss(metrics, dataset.num_train, candidate))
    return Result(
        summary=_summary(fleet, whole_s or [one.step_s for one in metrics], len(metrics), final, wall_s), fleet=fleet
    )


def _examples(config: ExperimentConfig, candidate: Candidate, num_train: int) -> Iterator[NDArray[np.int64]]:
    """The examples of every minibatch, epoch after epoch without end."""
    epoch = 0
    while True:
        yield from minibatches(num_train, candidate.minibatch_size, config.training.seed, epoch)
        epoch += 1


def _metrics(step: int, result: StepResult, num_examples: int) -> Metrics:
    return Metrics(
        step=step,
        loss=result.loss,
        loss_hex=result.loss.hex(),
        objective=result.loss + result.penalty,
        penalty=result.penalty,
        step_s=result.step_s,
        samples_per_s=num_examples / result.step_s,
        grad_norm=result.grad_norm,
    )


def _check_finite(metrics: Metrics, candidate: Candidate) -> None:
    for name in ("loss", "grad_norm"):
        value = getattr(metrics, name)
        if not math.isfinite(value):
            raise RunError(
                f"step {metrics.step}: {name} is {value}; the learning rate is {candidate.learning_rate:g}, "
                "try a tenth of it (optimizer.lr)"
            )


def _last_epoch_loss(metrics: list[Metrics], num_train: int, candidate: Candidate) -> float:
    steps = metrics[-math.ceil(num_train / candidate.minibatch_size) :]
    return sum(one.loss for one in steps) / len(steps)


def evaluate(fleet: Fleet, dataset: Dataset, config: ExperimentConfig, train_loss: float) -> Final:
    """Loss on the examples held out, and accuracy where the targets are classes."""
    if dataset.num_test == 0:
        return Final(train_loss=train_loss, test_loss=None, test_accuracy=None)
    logits = np.concatenate(list(fleet.predict(dataset.test_x)))
    targets = read_all(dataset.test_y)
    loss = host_loss(config.model.loss, logits, targets)
    has_classes = config.model.loss == "cross_entropy"
    accuracy = float((logits.argmax(axis=1) == targets).mean()) if has_classes else None
    return Final(train_loss=train_loss, test_loss=loss, test_accuracy=accuracy)


def host_loss(name: str, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """The mean loss in float64 on the host, for an evaluation that needs no gradient."""
    o, y = torch.from_numpy(outputs).double(), torch.from_numpy(targets)
    if name == "mse":
        return float(torch.nn.functional.mse_loss(o, y.double()))
    return float(torch.nn.functional.cross_entropy(o, y))


def _summary(fleet: Fleet, step_s: list[float], num_steps: int, final: Final, wall_s: float) -> Summary:
    candidate = fleet.candidate
    assert candidate.predicted is not None
    is_simulated = any(worker.device.spec.kind == "simulated" for worker in fleet.workers)
    return Summary(
        schema_version=SCHEMA_VERSION,
        candidate=candidate.name,
        num_steps=num_steps,
        wall_s=wall_s,
        final=final,
        per_device=tuple(
            DeviceBytes(
                device=worker.device.name,
                predicted_peak_bytes=stage.memory.peak_bytes,
                measured_peak_bytes=worker.device.peak_bytes,
            )
            for worker, stage in zip(fleet.workers, candidate.stages, strict=True)
        ),
        step_time=StepTime(
            predicted_s=candidate.predicted.step_s,
            measured_s=median_step_s(step_s),
            clock="simulated" if is_simulated else "wall",
        ),
    )
