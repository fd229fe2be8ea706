"""Steps whose laps are taken: of every operator, of the update, and what is left.

A lap goes from the end of the operator before to an operator's own end, so the buffers taken in between are in it. On a
GPU the marks are events on its stream.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from partition.costs.profile import Curve
from partition.costs.work import operator_key
from partition.graph import Program
from partition.graph.program import Give, Operator, Take
from partition.plan import Candidate, Search
from partition.runtime.made_up import made_up_examples
from partition.runtime.stage import INSTRUCTION_METHODS, Frame, Stage
from partition.runtime.update import Update
from partition.runtime.worker import Parts
from partition.runtime.workers import Fleet
from partition.schedule.actions import COMPUTE


class Stopwatch:
    """The laps of what runs on one device, in order."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self.is_running = True
        """Whether laps are taken; without, a step is as in training."""
        self.laps: list[tuple[Operator | None, Any, Any]] = []
        """What ran, None for an update, from when, until when."""

    def now(self) -> Any:
        """An instant: seconds, or an event on the GPU's stream."""
        if not self._is_cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self) -> list[tuple[Operator | None, float]]:
        """Of every lap; the device has been waited for."""
        if self._is_cuda:
            return [(of, start.elapsed_time(end) / 1000) for of, start, end in self.laps]
        return [(of, end - start) for of, start, end in self.laps]


class TimedStage(Stage):
    """A stage that takes the time of its operators."""

    def __init__(self, watch: Stopwatch, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._watch = watch

    def run(self, program: Program, frame: Frame) -> None:
        """Interpret a program; what is given back at its end is the last operator's."""
        if self._watch.is_running:
            self._run_marked(program, frame)
        else:
            super().run(program, frame)

    def _run_marked(self, program: Program, frame: Frame) -> None:
        laps, now = self._watch.laps, self._watch.now
        start, last = now(), None
        for instruction in program:
            INSTRUCTION_METHODS[type(instruction)](self, instruction, frame)
            if not isinstance(instruction, Take | Give):
                end = now()
                laps.append((instruction, start, end))
                start, last = end, instruction
        if last is not None and isinstance(program[-1], Give):
            _, began, _ = laps.pop()
            laps.append((last, began, now()))


class TimedUpdate(Update):
    """An update that takes its time."""

    def __init__(self, watch: Stopwatch, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._watch = watch

    def measure(self) -> None:
        """Take the norms."""
        self._timed(super().measure)

    def apply(self, scale: float = 1.0) -> None:
        """Update the parameters."""
        self._timed(partial(super().apply, scale))

    def _timed(self, run: Callable[[], None]) -> None:
        if not self._watch.is_running:
            run()
            return
        start = self._watch.now()
        run()
        self._watch.laps.append((None, start, self._watch.now()))


@dataclass(frozen=True, kw_only=True)
class TimedStep:
    """One step of the stand-in, or the mean of several."""

    operators_s: dict[str, float]
    """Mean over all that ran, by key."""
    update_s: float
    rest_s: float
    """What neither operators nor update took."""
    num_actions: float
    total_s: float
    """As the host sees it, marks and all."""

    def times(self, factor: float) -> TimedStep:
        """The same with all seconds so many times as long."""
        return TimedStep(
            operators_s={key: factor * of for key, of in self.operators_s.items()},
            update_s=factor * self.update_s,
            rest_s=factor * self.rest_s,
            num_actions=self.num_actions,
            total_s=factor * self.total_s,
        )


class Runner:
    """Trains one candidate of one device on made-up examples."""

    def __init__(self, search: Search, candidate: Candidate) -> None:
        self._network = search.network
        device = search.cluster.devices[0]
        self._watch = Stopwatch(torch.device("cuda" if device.kind == "cuda" else "cpu"))
        self._fleet = Fleet(
            search,
            candidate,
            parts=Parts(stage=partial(TimedStage, self._watch), update=partial(TimedUpdate, self._watch)),
        )
        row = search.layouts(candidate)[0].schedule.rows[0]
        self._num_actions = sum(action.kind in COMPUTE for action in row)
        self._x, self._y = made_up_examples(search, candidate.minibatch_size)
        self._examples = np.random.default_rng(0).permutation(candidate.minibatch_size)

    def step_s(self, *, is_marked: bool = True) -> float:
        """Seconds of a step, with the taking of its laps or without."""
        self._watch.is_running = is_marked
        start_s = time.perf_counter()
        self.step()
        taken_s = time.perf_counter() - start_s
        self._watch.is_running = True
        return taken_s

    def step(self) -> TimedStep:
        """One step, timed; a learning rate so small that nothing grows."""
        self._watch.laps.clear()
        # Not the fleet's own figure: that begins where its last step ended, and has in it what is done here between.
        start_s = time.perf_counter()
        self._fleet.train(self._x, self._y, self._examples, learning_rate=1e-30, upcoming=self._examples)
        total_s = time.perf_counter() - start_s
        seconds: dict[str, list[float]] = defaultdict(list)
        update_s = 0.0
        for operator, taken_s in self._watch.seconds():
            if operator is None:
                update_s += taken_s
            else:
                seconds[operator_key(operator, self._network.loss)].append(taken_s)
        return TimedStep(
            operators_s={key: statistics.fmean(of) for key, of in seconds.items()},
            update_s=update_s,
            rest_s=max(0.0, total_s - update_s - sum(map(sum, seconds.values()))),
            num_actions=self._num_actions,
            total_s=total_s,
        )


def curve(measured: Mapping[int, tuple[float, float]]) -> Curve:
    """Seconds and spread by size, sizes in increasing order."""
    sizes = tuple(sorted(measured))
    return Curve(
        sizes=sizes,
        seconds=tuple(measured[size][0] for size in sizes),
        spread=tuple(measured[size][1] for size in sizes),
    )


def median_and_spread(seconds: Sequence[float]) -> tuple[float, float]:
    """The median, and the distance between the quartiles as a fraction of it: one disturbed repetition is no spread."""
    middle = statistics.median(seconds)
    if len(seconds) < 2 or middle <= 0:
        return middle, 0.0
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return middle, (high - low) / middle
