"""The ranks of a candidate that live in this process: they train on minibatches and predict together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from partition.costs.noise import StepNoise
from partition.data.rows import Examples
from partition.ops.mixed import to_numpy
from partition.plan import Candidate, Search
from partition.plan.prediction import MOST_IN_ONE_PASS, prediction_schedule, prediction_sizes
from partition.runtime.channel import MessageKey
from partition.runtime.fault import Findings, describe_fault
from partition.runtime.feed import MinibatchFeed, example_weight, fed_variables
from partition.runtime.ranks import Ranks, no_seconds
from partition.runtime.step import Step
from partition.runtime.turns import Run, run_in_turn
from partition.runtime.worker import Parts, Worker
from partition.runtime.world import Numbers, World, share_all
from partition.schedule import ReplayCosts

_Minibatch = tuple[Examples, Examples, NDArray[np.int64]]
"""Inputs and targets of the data set, and which of its examples."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step reports, the same on every rank."""

    loss: float
    penalty: float
    grad_norm: float
    step_s: float
    """Since the end of the step before, on this process's clock."""
    stop_signal: int
    """The signal that asks some rank to stop; 0 where none does."""
    noise: StepNoise | None = None
    """What the gradients of the examples came to; None where noise is not measured."""


class Fleet(Ranks):
    """The ranks of a candidate that live in this process train on minibatches and predict together."""

    def __init__(
        self, search: Search, candidate: Candidate, world: World | None = None, parts: Parts | None = None
    ) -> None:
        super().__init__(search, candidate, world, parts)
        self._ended_s: float | None = None
        self._step = 0
        self._coming: tuple[_Minibatch, dict[int, MinibatchFeed]] | None = None
        """The next minibatch, and its feeds with rows that wait in the host's memory."""

    def train(
        self,
        x: Examples,
        y: Examples,
        examples: NDArray[np.int64],
        *,
        learning_rate: float | None = None,
        stop_signal: int = 0,
        step: int | None = None,
        upcoming: NDArray[np.int64] | None = None,
    ) -> StepResult:
        """One optimizer step on the given examples, at most a minibatch of them.

        Without a learning rate it is the one of the step before, and without the number of the step the next one: what
        dropout drops follows from it. `stop_signal` tells all ranks that this process has been asked to stop.
        `upcoming` are the examples of the step after it: their first rows are gathered while a GPU computes.
        """
        if learning_rate is not None:
            self._set_learning_rate(learning_rate)
        start_s = self._align_clocks() if self._ended_s is None else self._ended_s
        self._step = self._step + 1 if step is None else step
        weight = example_weight(self.search.network.loss, y, examples)
        num_losses = self.run_minibatch(x, y, examples, weight, upcoming)
        numbers = {
            worker.rank: self._numbers(worker, num_losses[worker.replica], stop_signal) for worker in self.workers
        }
        totals = self.tally.totals(share_all(self.world, numbers))
        self._ended_s = self._align_clocks()
        return StepResult(
            loss=totals.loss,
            penalty=totals.penalty,
            grad_norm=totals.grad_norm,
            step_s=self._ended_s - start_s,
            stop_signal=totals.stop_signal,
            noise=totals.noise(len(examples)),
        )

    def run_minibatch(
        self,
        x: Examples,
        y: Examples,
        examples: NDArray[np.int64],
        weight: float,
        upcoming: NDArray[np.int64] | None = None,
    ) -> dict[int, int]:
        """Run the candidate's schedule on at most a minibatch of examples, each of the given weight.

        Gives the number of microbatches, and so of losses, of every replica that lives here.
        """
        runs: list[Run] = []
        num_losses: dict[int, int] = {}
        coming, self._coming = self._coming, None
        is_ready = coming is not None and all(map(operator.is_, coming[0], (x, y, examples)))
        feeds = coming[1] if coming is not None and is_ready else self._feeds(x, y, examples)
        meanwhile = partial(self._look_ahead, x, y, upcoming) if upcoming is not None and self._on_gpus else None
        for replica, first, part in self._parts(examples):
            layout, costs = self._priced_layout(replica, len(part))
            num_losses[replica] = layout.num_microbatches
            step = Step(
                sizes=layout.sizes,
                weight=weight,
                step=self._step,
                first_example=first,
                feed=feeds[replica],
                seconds=costs.seconds_of,
                meanwhile=meanwhile,
            )
            runs += self.runs(replica, layout.schedule, step, _transfers(costs))
        run_in_turn(runs)
        for worker in self.workers:
            worker.device.synchronize()
        return num_losses

    def _feeds(self, x: Examples, y: Examples, examples: NDArray[np.int64]) -> dict[int, MinibatchFeed]:
        """Of every replica that lives here."""
        return {
            replica: MinibatchFeed(x, y, part, self._priced_layout(replica, len(part))[0].sizes)
            for replica, _, part in self._parts(examples)
        }

    def _look_ahead(self, x: Examples, y: Examples, examples: NDArray[np.int64]) -> None:
        """Gather the rows that the GPUs here will ask for first; once for every step."""
        if self._coming is not None:
            return
        self._coming = ((x, y, examples), self._feeds(x, y, examples))
        for worker in self._on_gpus:
            self._coming[1][worker.replica].gather(fed_variables(worker.stages, self.candidate.num_stages))

    def _set_learning_rate(self, learning_rate: float) -> None:
        for worker in self.workers:
            for update in worker.updates.values():
                for group in update.optimizer.param_groups:
                    group["lr"] = learning_rate

    def _numbers(self, worker: Worker, num_losses: int, stop_signal: int) -> Numbers:
        """What a rank tells the others of a step; of the losses that it has room for only those of this step."""
        last = worker.stages.get(self.candidate.num_stages - 1)
        losses = [] if last is None else last.losses_M[:num_losses].tolist()
        squares = {index: stage.example_squares(num_losses) for index, stage in worker.stages.items()}
        return self.tally.pack(
            worker.rank, worker.updates, losses, stop_signal, squares if self.search.model.has_noise else None
        )

    def _align_clocks(self) -> float:
        """A step is over when its last rank is done, and the next begins then."""
        now_s = max(worker.clock.now_s for worker in self.workers)
        for worker in self.workers:
            worker.clock.wait_until(now_s)
        return now_s

    def predict(
        self, x: Examples, examples: NDArray[np.int64] | None = None, replica: int = 0
    ) -> Iterator[NDArray[Any]]:
        """The logits of the given rows, or of all, one microbatch after another, in no more memory than training takes.

        There are none where the last stage of the replica lives in another process.
        """
        examples = np.arange(len(x)) if examples is None else examples
        # The largest that this replica trains on: another one's may be larger, and need more memory.
        rows = max(self.search.layouts(self.candidate)[replica].sizes)
        most = rows * MOST_IN_ONE_PASS
        for start in range(0, len(examples), most):
            yield from self._predict(x, examples[start : start + most], replica, rows)

    def find_fault(self, x: Examples, examples: NDArray[np.int64]) -> str:
        """What first was not finite in the step just made on these examples; all ranks look for it together."""
        findings = {worker.rank: Findings() for worker in self.workers}
        for worker in self.workers:
            for stage in worker.stages.values():
                findings[worker.rank].gradients_of(stage)

        def examine(rank: int, layer: int, tensor: Tensor) -> None:
            findings[rank].output(layer, tensor)

        for replica, _, part in self._parts(examples):
            rows = max(self.search.layouts(self.candidate)[replica].sizes)
            most = rows * MOST_IN_ONE_PASS
            for start in range(0, len(part), most):
                self._predict(x, part[start : start + most], replica, rows, examine)
        return describe_fault(self.world, findings, self.candidate, self.search.network.layers)

    def _predict(
        self,
        x: Examples,
        examples: NDArray[np.int64],
        replica: int,
        rows: int,
        examine: Callable[[int, int, Tensor], None] | None = None,
    ) -> list[NDArray[Any]]:
        sizes = prediction_sizes(len(examples), rows)
        found: dict[int, NDArray[Any]] = {}

        def keep(microbatch: int, logits: Tensor) -> None:
            found[microbatch] = to_numpy(logits.cpu())

        feed = MinibatchFeed(x, x, examples, sizes)
        step = Step(sizes=sizes, weight=1.0, feed=feed, seconds=no_seconds, sink=keep, examine=examine)
        placement = self.search.layouts(self.candidate)[replica].schedule.placement
        run_in_turn(self.runs(replica, prediction_schedule(placement, len(sizes)), step, no_seconds))
        return [found[microbatch] for microbatch in sorted(found)]


def _transfers(costs: ReplayCosts) -> Callable[[MessageKey], float]:
    return lambda key: costs.transfer_s(key.send)
