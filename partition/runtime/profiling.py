"""Measured costs of layers: training steps of a stand-in for the network, every operator with its time.

The stand-in has the network's layers, of a run of equal ones only as many as fill the caches, so that each distinct
shape is measured among its neighbours: with buffers taken and given back, weights that have left the caches, and the
autograd and Python of a real step. It trains on one device, a minibatch in a few microbatches, for each of a range of
microbatch sizes. Where there are several ranks all do so at once.

    operator        from the end of the operator before it to its own: the buffers taken in between are in it
    update          norms and optimizer step, in seconds for each element
    action, step    what is left of a step of a tiny network, of few and of many microbatches

A GPU works through what the host has queued. There the laps are those of its stream, in which marks cost the host time
that training does not spend: they are made shorter by what steps without marks take less. And of what is added to an
action only what the GPU's work does not hide counts, which is measured for every size.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from partition.config import ExperimentConfig, ModelConfig
from partition.costs.profile import Curve, Overheads
from partition.costs.work import operator_key
from partition.data.stores import free_bytes
from partition.errors import PartitionError
from partition.graph import Program, build_network
from partition.graph.program import Give, Operator, Take
from partition.plan import Candidate, Search
from partition.plan.shape import Shape
from partition.plan.split import Segment
from partition.runtime.made_up import made_up_examples
from partition.runtime.stage import INSTRUCTION_METHODS, Frame, Stage
from partition.runtime.update import Update
from partition.runtime.workers import Fleet, Parts
from partition.runtime.world import World, share_largest
from partition.schedule import Kind

FILLS_CACHES_BYTES = 64 * 2**20
"""Parameters of a stand-in beyond which it is not made deeper: twice what the caches of large servers hold."""
MOST_MICROBATCHES = 8
"""Of a step of the stand-in."""
HALVINGS = 6
"""Microbatch sizes are the minibatch, its half and so on, this many times, and one example."""
BUDGET_S = 35.0
"""Of the steps of the stand-in; the least number of repetitions may need more."""
LEAST_REPEATS, MOST_REPEATS = 3, 15
ASSUMED_FREE_BYTES = 2**34
"""Of a host that does not say."""
_ACTIONS = (Kind.F, Kind.B, Kind.I, Kind.W)
TINY_WIDTH, TINY_MICROBATCHES, TINY_REPEATS = 8, 17, 15


class Stopwatch:
    """The laps of what runs on one device, in order."""

    def __init__(self, device: torch.device) -> None:
        self.is_cuda = device.type == "cuda"
        self.is_running = True
        """Whether laps are taken; without, a step is as in training."""
        self.laps: list[tuple[Operator | None, Any, Any]] = []
        """What ran, None for an update, from when, until when."""

    def now(self) -> Any:
        """An instant: seconds, or an event on the GPU's stream."""
        if not self.is_cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self) -> list[tuple[Operator | None, float]]:
        """Of every lap; the device has been waited for."""
        if self.is_cuda:
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
        start = self._watch.now()
        run()
        if self._watch.is_running:
            self._watch.laps.append((None, start, self._watch.now()))


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What layers cost on this device."""

    operators: dict[str, Curve]
    overheads: Overheads


def measure_layers(config: ExperimentConfig, world: World, share_bytes: int, budget_s: float = BUDGET_S) -> Layers:
    """Measure the layers of an experiment; all ranks of a world call it together, each on its own device.

    `share_bytes` is what each of them may take of its host, the same for all: `smallest_share`.

    Raises PartitionError where not even one example of the stand-in fits.
    """
    search = stand_in_search(config, share_bytes)
    sizes = _fitting(search, _sizes(config.training.minibatch_size))
    tiny_s, update_s = _measure_tiny(config, world, share_bytes)
    (few, few_s), (many, many_s) = tiny_s
    action_s = max(0.0, (many_s - few_s) / (2 * (many - few)))
    step_s = max(0.0, few_s - 2 * few * action_s)
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    exposed: dict[int, tuple[float, float]] = {}
    updates = []
    for rows in sizes:
        steps = _steps(search, rows, world, budget_s / len(sizes))
        updates += [step.update_s for step in steps]
        exposed[rows] = median_and_spread([max(0.0, step.rest_s - step_s) / step.num_actions for step in steps])
        for key in steps[0].operators_s:
            found[key][rows] = median_and_spread([step.operators_s[key] for step in steps])
    elements = search.model.stage(0, search.network.num_layers - 1).parameter_elements
    return Layers(
        operators={key: curve(of) for key, of in found.items()},
        overheads=Overheads(
            action_s=action_s,
            exposed=curve(exposed) if config.cluster.devices[0].kind == "cuda" else None,
            step_s=step_s,
            update_s=update_s,
            update_s_per_element=max(0.0, statistics.median(updates) - update_s) / elements,
        ),
    )


def check_room(config: ExperimentConfig, share_bytes: int) -> None:
    """Raise PartitionError where no size of the layers can be measured with so many bytes."""
    _fitting(stand_in_search(config, share_bytes), _sizes(config.training.minibatch_size))


def fitting_candidates(search: Search) -> list[Candidate]:
    """A step of the stand-in with full backwards for every size of microbatches that fits, in increasing order."""
    sizes = _fitting(search, _sizes(search.minibatch_size))
    return [_candidates(search, rows)[0] for rows in sizes]


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


# The networks that are measured


def _stand_in(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment on fewer of its equal layers: as many as fill the caches, or all."""
    model = config.model
    depth = len(build_network(model).layers)
    for repeats in range(2, depth + 3):
        shorter = _of_shorter_runs(model, repeats)
        elements = build_network(shorter).parameter_elements
        if shorter == model or elements * config.precision.parameter_itemsize >= FILLS_CACHES_BYTES:
            break
    return config.model_copy(update={"model": shorter})


def _of_shorter_runs(model: ModelConfig, repeats: int) -> ModelConfig:
    """The model with every run of equal layers cut to one more than so many: the first of a run may read other widths.

    Of equal blocks it suffices to have as many as that.
    """
    if model.blocks is not None:
        blocks = (block.model_copy(update={"repeat": min(block.repeat, repeats)}) for block in model.blocks)
        return model.model_copy(update={"blocks": tuple(blocks)})
    hidden = tuple(width for _, run in groupby(model.hidden_features) for width in list(run)[: repeats + 1])
    return model.model_copy(update={"hidden_features": hidden})


def _tiny(config: ExperimentConfig) -> ExperimentConfig:
    """A network whose steps are nearly all Python."""
    hidden = (TINY_WIDTH,) * 2
    widths = {"in_features": TINY_WIDTH, "hidden_features": hidden, "out_features": TINY_WIDTH}
    model = config.model.model_copy(update={**widths, "blocks": None, "class_weights": None})
    return config.model_copy(update={"model": model})


def smallest_share(world: World, ranks_on_host: int) -> int:
    """Bytes that every rank can have of its host, the least of all ranks; all call it together.

    What fits is decided by it, so all must have the same: hosts differ, and a host's free memory changes between two
    looks at it.
    """
    mine = (free_bytes() or ASSUMED_FREE_BYTES) // ranks_on_host * 3 // 4
    return int(-share_largest(world, [-mine])[0])


def stand_in_search(config: ExperimentConfig, share_bytes: int, num_devices: int = 1) -> Search:
    """What prices and lays out the stand-in of an experiment on so many devices."""
    return _search_of(_stand_in(config), share_bytes, num_devices)


def _search_of(config: ExperimentConfig, share_bytes: int, num_devices: int = 1) -> Search:
    """The experiment on devices alike: GPUs with their limit, elsewhere a share of the host each."""
    device = config.cluster.devices[0]
    if device.kind != "cuda":
        device = device.model_copy(update={"name": None, "kind": "cpu", "memory_bytes": max(1, share_bytes)})
    cluster = config.cluster.model_copy(update={"devices": (device,) * num_devices})
    planner = config.planner.model_copy(update={"costs": None, "minibatch_sizes": None})
    return Search(config.model_copy(update={"cluster": cluster, "planner": planner}))


def _sizes(minibatch_size: int) -> list[int]:
    """Microbatch sizes worth knowing: those of halvings of the minibatch, and one example."""
    return sorted({1, *(-(-minibatch_size // (1 << shift)) for shift in range(HALVINGS + 1))})


def _candidate(search: Search, rows: int, count: int, schedule: str) -> Candidate:
    """So many microbatches of so many examples on the one device."""
    shape = Shape(name="profile", strategy="accumulate", minibatch_size=rows * count, num_microbatches=count,
                  schedule=schedule)  # fmt: skip
    return search.price(shape, [Segment(0, 0, search.network.num_layers - 1)])


def _candidates(search: Search, rows: int) -> list[Candidate]:
    """What is measured at one size, where it fits: a step with full backwards, and one with I and W."""
    return [candidate for candidate in _both(search, rows) if candidate.feasible]


def _both(search: Search, rows: int) -> list[Candidate]:
    count = max(1, min(MOST_MICROBATCHES, search.minibatch_size // rows))
    return [_candidate(search, rows, count, schedule) for schedule in ("1f1b", "zb_h1")]


def _fitting(search: Search, sizes: Sequence[int]) -> list[int]:
    """The sizes of which the device holds a step, in increasing order as they are given.

    Raises PartitionError where it holds none.
    """
    found = [rows for rows in sizes if _candidates(search, rows)]
    if not found:
        raise _refusal(search, _both(search, sizes[0])[0])
    return found


def _refusal(search: Search, candidate: Candidate) -> PartitionError:
    return PartitionError(
        f"{search.network.num_layers} layers cannot be measured here: a step of {candidate.minibatch_size} examples, "
        f"{candidate.microbatch_size} at a time, {candidate.reason}; free memory, or measure a smaller model"
    )


# Steps


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step of the stand-in, or the mean of several."""

    operators_s: dict[str, float]
    """Mean over all that ran, by key."""
    update_s: float
    rest_s: float
    """What neither operators nor update took."""
    num_actions: float
    total_s: float
    """As the host sees it, marks and all."""

    def times(self, factor: float) -> _Step:
        """The same with all seconds so many times as long."""
        return _Step(
            operators_s={key: factor * of for key, of in self.operators_s.items()},
            update_s=factor * self.update_s,
            rest_s=factor * self.rest_s,
            num_actions=self.num_actions,
            total_s=factor * self.total_s,
        )


def _steps(search: Search, rows: int, world: World, budget_s: float) -> list[_Step]:
    """Steps at one size, one after another until the time is up.

    Each is the mean of a step with full backwards and, where that fits, one with I and W.
    """
    runs = [Runner(search, candidate) for candidate in _candidates(search, rows)]
    is_cuda = search.cluster.devices[0].kind == "cuda"
    per_repeat = len(runs) * (2 if is_cuda else 1)
    for runner in runs:
        runner.step()
    slowest_s = float(share_largest(world, [max(runner.step_s() for runner in runs)])[0])
    repeats = round(min(MOST_REPEATS, max(LEAST_REPEATS, budget_s / (per_repeat * slowest_s))))
    found, factors = [], []
    for _ in range(repeats):
        found.append(_mean([runner.step() for runner in runs]))
        if is_cuda:
            unmarked_s = statistics.mean(runner.step_s(is_marked=False) for runner in runs)
            factors.append(unmarked_s / found[-1].total_s)
    share_largest(world, [0.0])  # none goes on to the next size, and leaves the machine quieter, while others measure
    factor = min(1.0, statistics.median(factors)) if factors else 1.0
    return [step.times(factor) for step in found]


def _mean(steps: Sequence[_Step]) -> _Step:
    keys = {key for step in steps for key in step.operators_s}
    return _Step(
        operators_s={
            key: statistics.mean(step.operators_s[key] for step in steps if key in step.operators_s)
            for key in sorted(keys)
        },
        update_s=statistics.mean(step.update_s for step in steps),
        rest_s=statistics.mean(step.rest_s for step in steps),
        num_actions=statistics.mean(step.num_actions for step in steps),
        total_s=statistics.mean(step.total_s for step in steps),
    )


def _measure_tiny(
    config: ExperimentConfig, world: World, share_bytes: int
) -> tuple[tuple[tuple[int, float], tuple[int, float]], float]:
    """Seconds that few and many microbatches leave besides operators and update, and seconds of the update."""
    search = _search_of(_tiny(config), share_bytes)
    rests, updates = [], []
    for count in (1, TINY_MICROBATCHES):
        candidate = _candidate(search, 1, count, "1f1b")
        if not candidate.feasible:
            raise _refusal(search, candidate)
        runner = Runner(search, candidate)
        for _ in range(3):
            runner.step()
        share_largest(world, [0.0])
        steps = [runner.step() for _ in range(TINY_REPEATS)]
        rests.append((count, statistics.median(step.rest_s for step in steps)))
        updates.append(statistics.median(step.update_s for step in steps))
    return (rests[0], rests[1]), min(updates)


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
        self._num_actions = sum(action.kind in _ACTIONS for action in row)
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

    def step(self) -> _Step:
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
        return _Step(
            operators_s={key: statistics.fmean(of) for key, of in seconds.items()},
            update_s=update_s,
            rest_s=max(0.0, total_s - update_s - sum(map(sum, seconds.values()))),
            num_actions=self._num_actions,
            total_s=total_s,
        )
