"""What messages cost in steps of a real pipeline over all ranks, where links and operators were measured alone.

Posting a message takes a few dozen microseconds of Python and of the library when nothing else runs, and more between
the products of a training step, which leave the caches full of other things. Products take longer, too, where a
library's thread wants the same cores, and a message whose two ends compute arrives later than one that is waited for.
So pipelines train for some steps, at a few sizes of microbatches, and three things are read from them:

    send, receive    what these actions take of their rank, and for the receive
                     what computations take longer here than their operators alone
    latency          by how much messages must be longer for the replay of these steps to take as long as they did
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from partition.config import ExperimentConfig
from partition.costs import Cluster, Profile
from partition.costs.profile import CostsFile, Curve, Messages
from partition.plan import Candidate, Search
from partition.plan.action_seconds import replay_costs
from partition.plan.shape import Shape
from partition.plan.split import Segment
from partition.runtime.made_up import made_up_examples
from partition.runtime.processes import ProcessWorld
from partition.runtime.stand_in import stand_in_search
from partition.runtime.timing import curve
from partition.runtime.worker import Parts
from partition.runtime.workers import Fleet
from partition.runtime.world import share_all
from partition.schedule import Action, Kind, ReplayCosts, replay
from partition.schedule.actions import COMPUTE, RECEIVES, SENDS

MICROBATCHES = {2: 4, 4: 8, 16: 8, 64: 8}
"""Of a step, by what the minibatch is divided by to give the size of one: from the largest that a pipeline has."""
ROUNDS, WARM_UP, REPEATS = 3, 1, 3
"""Steps are measured in several rounds: other users of a host slow it down for seconds, hardly ever in most rounds."""
FIRST_LATENCY_S = 0.1
"""Doubled until it explains what was measured."""
HALVINGS = 20
"""Of the interval in which the latency is looked for."""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How messages are measured."""

    schedules: tuple[str, ...]
    """The mean of what is found in each is kept."""
    quantile: float
    """Of the seconds of all steps."""


_WITHIN_HOST = _Way(schedules=("1f1b",), quantile=0.25)
"""A message is read from memory by who wants it: what now and then takes longer is others' doing. GPipe computes longer
because of all that it holds, not because of messages."""
_BETWEEN_HOSTS = _Way(schedules=("1f1b", "gpipe"), quantile=0.5)
"""A link is unsteady by itself, and the cores of a host carry its messages: 1F1B mostly waits for them, GPipe computes
meanwhile, and takes longer for it."""


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Of a message of one size."""

    num_bytes: int
    send_s: float
    receive_s: float
    latency_s: float


def messages_in_pipeline(file: CostsFile, config: ExperimentConfig, world: ProcessWorld, share_bytes: int) -> Messages:
    """The messages of a file as they are in training; all ranks call it together, each with what it has measured.

    `share_bytes` is what each of them may take of its host, the same for all.
    Unchanged where the network has too few layers for a pipeline over all ranks.
    """
    messages = file.messages
    assert messages is not None, "several ranks have measured their messages"
    search = stand_in_search(config, share_bytes, world.process.world_size)
    num_layers, num_ranks = search.network.num_layers, world.process.world_size
    if num_layers < num_ranks:
        return messages
    segments = [
        Segment(rank, rank * num_layers // num_ranks, (rank + 1) * num_layers // num_ranks - 1)
        for rank in range(num_ranks)
    ]
    way = _WITHIN_HOST if world.process.local_world_size == num_ranks else _BETWEEN_HOSTS
    counts = {max(1, config.training.minibatch_size // part): count for part, count in MICROBATCHES.items()}
    shapes = [
        Shape(name="profile", strategy="pipeline", minibatch_size=rows * count, num_microbatches=count,
              num_ranks=num_ranks, num_stages=num_ranks, schedule=schedule)
        for rows, count in sorted(counts.items()) for schedule in way.schedules
    ]  # fmt: skip
    candidates = [candidate for shape in shapes if (candidate := search.price(shape, segments)).feasible]
    rounds = [[_observe(search, candidate, world) for candidate in candidates] for _ in range(ROUNDS)]
    found: dict[int, list[_Cost]] = defaultdict(list)
    for candidate, steps in zip(candidates, zip(*rounds, strict=True), strict=True):
        seconds: list[float] = np.quantile(np.concatenate(steps), way.quantile, axis=0).tolist()
        cost = _cost(file, search, candidate, segments, world, seconds)
        found[cost.num_bytes].append(cost)
    return _with(messages, [_mean(found[num_bytes]) for num_bytes in sorted(found)])


def _mean(costs: Sequence[_Cost]) -> _Cost:
    """Of messages of one size."""
    return _Cost(
        num_bytes=costs[0].num_bytes,
        send_s=fmean(cost.send_s for cost in costs),
        receive_s=fmean(cost.receive_s for cost in costs),
        latency_s=fmean(cost.latency_s for cost in costs),
    )


def _with(messages: Messages, costs: Sequence[_Cost]) -> Messages:
    if not costs:
        return messages
    sizes = [cost.num_bytes for cost in costs]

    def later(alone: Curve) -> Curve:
        # Beyond the sizes that were measured the latency of the nearest: a line through noise would lead anywhere.
        added = np.interp(alone.sizes, sizes, [cost.latency_s for cost in costs])
        seconds = tuple(float(one + more) for one, more in zip(alone.seconds, added, strict=True))
        return alone.model_copy(update={"seconds": seconds})

    links = tuple(link.model_copy(update={"curve": later(link.curve)}) for link in messages.links)
    send, receive = (
        curve({cost.num_bytes: (seconds, 0.0) for cost, seconds in zip(costs, of, strict=True)})
        for of in ([cost.send_s for cost in costs], [cost.receive_s for cost in costs])
    )
    return messages.model_copy(update={"send": send, "receive": receive, "links": links})


def _cost(
    file: CostsFile,
    search: Search,
    candidate: Candidate,
    segments: Sequence[Segment],
    world: ProcessWorld,
    observed: Sequence[float],
) -> _Cost:
    """What a message costs, read from what `_observe` has seen of this rank in a step of a pipeline."""
    (layout,) = search.layouts(candidate)
    (size,) = layout.distinct_sizes
    cuts = [search.model.stage(of.first_layer, of.last_layer).microbatch(size).output_bytes for of in segments[:-1]]
    num_bytes, num_messages = sorted(cuts)[len(cuts) // 2], 2 * len(cuts) * layout.num_microbatches
    alone = replay_costs(layout, segments, _priced(search.cluster, file), search.costs)
    row = layout.schedule.rows[world.process.rank]
    predicted_s = sum(alone.seconds_of(action) for action in row if action.kind in COMPUTE)
    every = np.stack(list(share_all(world, {world.process.rank: np.array([*observed, predicted_s])})))
    send_s, receive_s, computing_s, _, alone_s = np.sum(every, axis=0)
    # A GPU computes while its rank goes on, so there computing has not been seen.
    excess_s = max(0.0, float(computing_s - alone_s)) if file.kind == "cpu" else 0.0
    cost = _Cost(
        num_bytes=num_bytes,
        send_s=float(send_s) / num_messages,
        receive_s=(float(receive_s) + excess_s) / num_messages,
        latency_s=0.0,
    )
    posted = replay_costs(layout, segments, _priced(search.cluster, file, cost), search.costs)

    def step_s(latency_s: float) -> float:
        return replay(layout.schedule, _later(posted, latency_s)).makespan_s

    return replace(cost, latency_s=_least_latency(step_s, float(np.max(every[:, 3]))))


def _priced(cluster: Cluster, file: CostsFile, cost: _Cost | None = None) -> Cluster:
    """The devices with what has been measured as their prices."""
    if cost is not None and file.messages is not None:
        file = file.model_copy(update={"messages": _with(file.messages, [cost])})
    profile = Profile(file=file, path="the measurement under way")
    return replace(cluster, devices=tuple(replace(device, profile=profile) for device in cluster.devices))


def _later(costs: ReplayCosts, latency_s: float) -> ReplayCosts:
    def later(table: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(seconds + latency_s for seconds in of_stage) for of_stage in table)

    return replace(costs, send_forward_s=later(costs.send_forward_s), send_backward_s=later(costs.send_backward_s))


def _least_latency(step_s: Callable[[float], float], measured_s: float) -> float:
    """The least addition to every message with which a step takes as long as it did; 0 where it does already."""
    low_s, high_s = 0.0, FIRST_LATENCY_S
    if step_s(low_s) >= measured_s:
        return 0.0
    # No step is shorter than one of its messages.
    while high_s < measured_s and step_s(high_s) < measured_s:
        low_s, high_s = high_s, 2 * high_s
    for _ in range(HALVINGS):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (low_s, middle_s) if step_s(middle_s) >= measured_s else (middle_s, high_s)
    return high_s


def _observe(search: Search, candidate: Candidate, world: ProcessWorld) -> NDArray[np.float64]:
    """[step, 4]: seconds of this rank's sends, receives, computations, and of the whole.

    Within a step they are sums: what now and then takes long is a part of every step.
    """
    seconds: dict[Kind, float] = defaultdict(float)

    def observe(action: Action, busy_s: float, waited_s: float) -> None:
        del waited_s
        seconds[action.kind] += busy_s

    fleet = Fleet(search, candidate, world, Parts(observe=observe))
    x, y = made_up_examples(search, candidate.minibatch_size)
    steps = []
    for _ in range(WARM_UP + REPEATS):
        seconds.clear()
        result = fleet.train(x, y, np.arange(candidate.minibatch_size), learning_rate=1e-30)
        steps.append([*(sum(seconds[kind] for kind in kinds) for kinds in (SENDS, RECEIVES, COMPUTE)), result.step_s])
    return np.array(steps[WARM_UP:])
