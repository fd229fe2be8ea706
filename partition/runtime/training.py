"""The training loop: epochs over shuffled minibatches, metrics of every step, an evaluation at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.costs.noise import NoiseEstimate, Parts, estimate_noise, step_parts
from partition.data.dataset import Dataset
from partition.data.minibatches import minibatches
from partition.errors import PeerError, RunError
from partition.graph import LossRecord
from partition.plan import Candidate, Search
from partition.record import DeviceBytes, Final, Metrics, StepTime, Summary
from partition.record.checkpoint import Position
from partition.record.run import SCHEMA_VERSION, median_step_s
from partition.runtime.checkpoint import Saver
from partition.runtime.evaluation import evaluate
from partition.runtime.fault import OF_INPUTS
from partition.runtime.learning_rate import learning_rate_at
from partition.runtime.liveness import Watch
from partition.runtime.sharded import ShardedModel
from partition.runtime.workers import Fleet, StepResult
from partition.runtime.world import World, share_all, share_largest

Trainee = Fleet | ShardedModel
"""What can be trained: the ranks of a candidate that live in this process."""

BEGINNING = Position()
NOISE_STEPS = 32
"""Over which the noise of each step is smoothed."""
_MEND_DATA = "remove or correct such examples (data), or have all values scaled (data.standardise: each)"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its summary and the fleet with the trained parameters."""

    summary: Summary
    fleet: Trainee
    stop_signal: int
    """The signal that ended it before its last step; 0 where none did."""
    last_step: int
    """The step after which it ended."""


def num_steps(config: ExperimentConfig, num_train: int, minibatch_size: int, start: Position = BEGINNING) -> int:
    """The step at which a run ends that goes on from `start`."""
    if config.training.steps is not None:
        return config.training.steps
    per_epoch = math.ceil(num_train / minibatch_size)
    left = (config.training.epochs or 1) * per_epoch - (start.epoch * per_epoch + start.minibatch)
    return start.step + max(0, left)


def build(search: Search, candidate: Candidate, world: World | None = None) -> Trainee:
    """What trains a candidate: stages with hand-written derivatives, or torch's sharded modules."""
    if candidate.sharding:
        return ShardedModel(search, candidate, world)
    return Fleet(search, candidate, world)


def train(
    search: Search,
    candidate: Candidate,
    dataset: Dataset,
    observe: Callable[[Metrics], None],
    *,
    world: World | None = None,
    watch: Watch | None = None,
    saver: Saver | None = None,
) -> Result:
    """Train a candidate and evaluate it; `observe` sees the metrics of every step as they come.

    Without a `world` all ranks live in this process. Where `watch` sees a signal that asks this process to
    stop, all ranks end after the same step. With a `saver` the run goes on from where that says, and is saved when
    that says, and where it is stopped. Raises DeviceMemoryError where a device runs out, RunError where loss or
    gradient are not finite, naming the layer that was the first.
    """
    config = search.config
    fleet = build(search, candidate, world)
    start, metrics = BEGINNING, list[Metrics]()
    if saver:
        saver.begin(fleet)
        start, metrics = saver.start, list(saver.earlier)
    total = num_steps(config, dataset.num_train, candidate.minibatch_size, start)
    start_s = time.perf_counter()
    whole_s: list[float] = []  # of the steps on a whole minibatch, which the prediction is for
    steps = range(start.step + 1, total + 1)
    stop_signal = 0
    each_with_next = pairwise(_examples(config, candidate, dataset.num_train, start))
    for step, (examples, upcoming) in zip(steps, each_with_next, strict=False):
        rate = learning_rate_at(config.optimizer, candidate.learning_rate, step, total)
        try:
            result = fleet.train(
                dataset.train_x,
                dataset.train_y,
                examples,
                learning_rate=rate,
                stop_signal=watch.stop_signal if watch else 0,
                step=step,
                upcoming=upcoming if step < total else None,
            )
        except PeerError as error:
            error.step = step
            raise
        if watch:
            watch.begin()
        is_full = len(examples) == min(candidate.minibatch_size, dataset.num_train)
        one = _metrics(step, result, len(examples), rate)
        metrics.append(_with_noise(one, result, metrics, dataset.num_train) if is_full else one)
        _check_finite(metrics[-1], partial(fleet.find_fault, dataset.train_x, examples), search.network.loss)
        if len(examples) == candidate.minibatch_size:
            whole_s.append(result.step_s)
        observe(metrics[-1])
        stop_signal = result.stop_signal
        if stop_signal and watch:
            watch.acknowledge()
        if saver:
            saver.after_step(step, fleet, is_last=step == total or stop_signal != 0)
        if stop_signal:
            break
    wall_s = time.perf_counter() - start_s
    train_loss = _last_epoch_loss(metrics, dataset.num_train, candidate)
    final = Final(train_loss=train_loss, test_loss=None, test_accuracy=None)
    if not stop_signal:
        final = evaluate(fleet, dataset, train_loss)
    step_s = _longest(fleet, whole_s or [one.step_s for one in metrics])
    noise = estimate_noise(_parts(metrics), dataset.num_train) if config.training.noise else None
    summary = _summary(fleet, step_s, len(metrics), final, wall_s, noise)
    if saver:
        summary = _since(summary, len(saver.earlier))
    last_step = metrics[-1].step
    return Result(summary=summary, fleet=fleet, stop_signal=stop_signal, last_step=last_step)


def _longest(fleet: Trainee, step_s: list[float]) -> list[float]:
    """The seconds of every step, each the longest of all ranks."""
    longest_s: list[float] = share_largest(fleet.world, step_s).tolist()
    return longest_s


def _examples(
    config: ExperimentConfig, candidate: Candidate, num_train: int, start: Position
) -> Iterator[NDArray[np.int64]]:
    """The examples of every minibatch from `start` on, epoch after epoch without end."""
    epoch, skipped = start.epoch, start.minibatch
    while True:
        yield from minibatches(num_train, candidate.minibatch_size, config.training.seed, epoch)[skipped:]
        epoch, skipped = epoch + 1, 0


def _metrics(step: int, result: StepResult, num_examples: int, learning_rate: float) -> Metrics:
    return Metrics(
        step=step,
        loss=result.loss,
        loss_hex=result.loss.hex(),
        objective=result.loss + result.penalty,
        penalty=result.penalty,
        step_s=result.step_s,
        samples_per_s=num_examples / result.step_s,
        grad_norm=result.grad_norm,
        learning_rate=learning_rate,
    )


def _with_noise(metrics: Metrics, result: StepResult, earlier: Sequence[Metrics], num_train: int) -> Metrics:
    """With what the step says of the noise of the gradient, if anything, smoothed over the last steps."""
    parts = step_parts(result.noise, num_train) if result.noise else None
    if parts is None:
        return metrics
    window = estimate_noise([*_parts(earlier[-2 * NOISE_STEPS :])[-NOISE_STEPS + 1 :], parts], num_train)
    return replace(metrics, **parts._asdict(), b_noise=window.b_noise)


def _parts(metrics: Sequence[Metrics]) -> list[Parts]:
    """What is measured of the steps that measured noise."""
    return [
        Parts(one.tr_sigma, one.grad_sq_norm)
        for one in metrics
        if one.tr_sigma is not None and one.grad_sq_norm is not None
    ]


def _check_finite(metrics: Metrics, find_fault: Callable[[], str], loss: LossRecord) -> None:
    """All ranks know the same figures of a step, and end after the same one."""
    for name in ("loss", "grad_norm"):
        value = getattr(metrics, name)
        if not math.isfinite(value):
            fault = find_fault()
            remedy = _MEND_DATA if fault == OF_INPUTS else _smaller_steps(metrics.learning_rate, loss)
            raise RunError(f"step {metrics.step}: {name} is {value}: {fault}; {remedy}")


def _smaller_steps(learning_rate: float, loss: LossRecord) -> str:
    or_else = f", or correct {loss.name} (model.loss)" if loss.is_imported else ""
    return f"the learning rate is {learning_rate:g}, try a tenth of it (optimizer.lr){or_else}"


def _last_epoch_loss(metrics: list[Metrics], num_train: int, candidate: Candidate) -> float:
    steps = metrics[-math.ceil(num_train / candidate.minibatch_size) :]
    return sum(one.loss for one in steps) / len(steps)


def _summary(
    fleet: Trainee, step_s: list[float], num_steps: int, final: Final, wall_s: float, noise: NoiseEstimate | None
) -> Summary:
    candidate = fleet.candidate
    assert candidate.predicted is not None
    names = {plan.rank: plan.device for plan in candidate.stages}
    predicted = candidate.predicted.peak_bytes
    return Summary(
        schema_version=SCHEMA_VERSION,
        candidate=candidate.name,
        num_steps=num_steps,
        wall_s=wall_s,
        final=final,
        per_device=tuple(
            DeviceBytes(device=names[rank], predicted_peak_bytes=predicted[rank], measured_peak_bytes=measured)
            for rank, measured in enumerate(shared_peaks(fleet))
        ),
        step_time=StepTime(
            predicted_s=candidate.predicted.step_s,
            measured_s=median_step_s(step_s),
            clock="simulated" if fleet.has_simulated_clock else "wall",
        ),
        noise=noise,
    )


def _since(summary: Summary, num_steps_before: int) -> Summary:
    """The summary of a run that went on after so many steps; where it took none, training was not seen."""
    summary = replace(summary, num_steps_before=num_steps_before)
    if summary.has_trained:
        return summary
    return replace(summary, per_device=tuple(replace(of, measured_peak_bytes=None) for of in summary.per_device))


def shared_peaks(fleet: Trainee) -> list[int | None]:
    """The measured peak of every rank, None where nothing measures it."""
    mine = {rank: -1 if peak is None else peak for rank, peak in fleet.peak_bytes().items()}
    every = share_all(fleet.world, {rank: np.array([peak], dtype=np.float64) for rank, peak in mine.items()})
    return [None if of_rank[0] < 0 else int(of_rank[0]) for of_rank in every]
