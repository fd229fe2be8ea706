"""Measured costs of layers: training steps of a stand-in for the network, every operator with its time.

The stand-in has the network's layers, of a run of equal ones only as many as fill the caches, so that each distinct
shape is measured among its neighbours: with buffers taken and given back, weights that have left the caches, and the
autograd and Python of a real step. It trains on one device, a minibatch in a few microbatches, for each of a range of
microbatch sizes. Where there are several ranks all do so at once.

    operator        from the end of the operator before it to its own: the buffers taken in between are in it
    update          norms and optimizer step, in seconds for each element
    action, step    what is left of a step of a tiny network, of few and of many microbatches

All sizes are measured in several rounds: other users of a host slow it down for seconds, of which every size then gets
a small part, where otherwise a few would get all.

A GPU works through what the host has queued. There the laps are those of its stream, in which marks cost the host time
that training does not spend: they are made shorter by what steps without marks take less. And of what is added to an
action only what the GPU's work does not hide counts, which is measured for every size.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partition.config import ExperimentConfig
from partition.costs.profile import Curve, Overheads
from partition.plan import Search
from partition.runtime.stand_in import (
    candidates,
    fitting_sizes,
    one_step,
    refusal,
    stand_in_search,
    tiny_search,
    worthwhile_sizes,
)
from partition.runtime.timing import Runner, TimedStep, curve, median_and_spread
from partition.runtime.world import World, share_largest

BUDGET_S = 26.0
"""Of the steps of the stand-in; the least number of repetitions may need more."""
ROUNDS = 3
LEAST_REPEATS, MOST_REPEATS = 1, 5
TINY_MICROBATCHES, TINY_REPEATS = (1, 17), 5
"""All repeats are of a round."""


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
    sizes = fitting_sizes(search, worthwhile_sizes(config.training.minibatch_size))
    tiny: dict[int, list[TimedStep]] = defaultdict(list)
    timed: dict[int, list[TimedStep]] = defaultdict(list)
    for _ in range(ROUNDS):
        for count in TINY_MICROBATCHES:
            tiny[count] += _tiny_steps(config, count, world, share_bytes)
        for rows in sizes:
            timed[rows] += _steps(search, rows, world, budget_s / (ROUNDS * len(sizes)))
    is_cuda = config.cluster.devices[0].kind == "cuda"
    elements = search.model.stage(0, search.network.num_layers - 1).parameter_elements
    return Layers(operators=_operators(timed), overheads=_overheads(tiny, timed, elements, is_cuda=is_cuda))


def _operators(timed: Mapping[int, Sequence[TimedStep]]) -> dict[str, Curve]:
    """Seconds of every operator by size."""
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for rows, steps in timed.items():
        for key in steps[0].operators_s:
            found[key][rows] = median_and_spread([step.operators_s[key] for step in steps])
    return {key: curve(of) for key, of in found.items()}


def _overheads(
    tiny: Mapping[int, Sequence[TimedStep]], timed: Mapping[int, Sequence[TimedStep]], elements: int, *, is_cuda: bool
) -> Overheads:
    """What is left of steps of a tiny network, of few and of many microbatches, and what updates take."""
    few, many = TINY_MICROBATCHES
    few_s, many_s = (statistics.median(step.rest_s for step in tiny[count]) for count in TINY_MICROBATCHES)
    action_s = max(0.0, (many_s - few_s) / (2 * (many - few)))
    step_s = max(0.0, few_s - 2 * few * action_s)
    exposed = {
        rows: median_and_spread([max(0.0, step.rest_s - step_s) / step.num_actions for step in steps])
        for rows, steps in timed.items()
    }
    update_s = min(statistics.median(step.update_s for step in steps) for steps in tiny.values())
    of_stand_in_s = statistics.median(step.update_s for steps in timed.values() for step in steps)
    return Overheads(
        action_s=action_s,
        exposed=curve(exposed) if is_cuda else None,
        step_s=step_s,
        update_s=update_s,
        update_s_per_element=max(0.0, of_stand_in_s - update_s) / elements,
    )


def _steps(search: Search, rows: int, world: World, budget_s: float) -> list[TimedStep]:
    """Steps at one size, one after another until the time is up.

    Each is the mean of a step with full backwards and, where that fits, one with I and W.
    """
    runs = [Runner(search, candidate) for candidate in candidates(search, rows)]
    is_cuda = search.cluster.devices[0].kind == "cuda"
    per_repeat = len(runs) * (2 if is_cuda else 1)
    slowest_s = float(share_largest(world, [max(runner.step().total_s for runner in runs)])[0])
    repeats = round(min(MOST_REPEATS, max(LEAST_REPEATS, budget_s / (per_repeat * slowest_s) - 1)))
    found, factors = [], []
    for _ in range(repeats):
        found.append(_mean([runner.step() for runner in runs]))
        if is_cuda:
            unmarked_s = statistics.mean(runner.step_s(is_marked=False) for runner in runs)
            factors.append(unmarked_s / found[-1].total_s)
    share_largest(world, [0.0])  # none goes on to the next size, and leaves the machine quieter, while others measure
    factor = min(1.0, statistics.median(factors)) if factors else 1.0
    return [step.times(factor) for step in found]


def _mean(steps: Sequence[TimedStep]) -> TimedStep:
    keys = {key for step in steps for key in step.operators_s}
    return TimedStep(
        operators_s={
            key: statistics.mean(step.operators_s[key] for step in steps if key in step.operators_s)
            for key in sorted(keys)
        },
        update_s=statistics.mean(step.update_s for step in steps),
        rest_s=statistics.mean(step.rest_s for step in steps),
        num_actions=statistics.mean(step.num_actions for step in steps),
        total_s=statistics.mean(step.total_s for step in steps),
    )


def _tiny_steps(config: ExperimentConfig, count: int, world: World, share_bytes: int) -> list[TimedStep]:
    """Steps that are nearly all Python, of so many microbatches."""
    search = tiny_search(config, share_bytes)
    candidate = one_step(search, 1, count, "1f1b")
    if not candidate.feasible:
        raise refusal(search, candidate)
    runner = Runner(search, candidate)
    for _ in range(3):
        runner.step()
    share_largest(world, [0.0])
    return [runner.step() for _ in range(TINY_REPEATS)]
