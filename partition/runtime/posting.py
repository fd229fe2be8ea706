"""What posting messages takes of a rank, measured in steps of a real pipeline over all ranks.

Posting is a few dozen microseconds of Python and of the library when nothing else runs, and several times as much
between the products of a training step, which leave the caches full of other things.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from partition.config import ExperimentConfig
from partition.costs.profile import Messages
from partition.plan import Candidate, Search
from partition.plan.search import Shape
from partition.plan.split import Segment
from partition.runtime.processes import ProcessWorld
from partition.runtime.profiling import curve, made_up_examples, stand_in_search
from partition.runtime.workers import Fleet, Parts
from partition.runtime.world import share_all
from partition.schedule import Action, Kind
from partition.schedule.actions import RECEIVES, SENDS

MICROBATCHES = 8
FRACTIONS = (4, 16, 64)
"""Microbatch sizes are the minibatch divided by these."""
WARM_UP, REPEATS = 2, 4


def with_postings(messages: Messages, config: ExperimentConfig, world: ProcessWorld) -> Messages:
    """The messages with their posting as it is in training; unchanged where the network has too few layers for it."""
    search = stand_in_search(config, world, world.process.world_size)
    num_layers, num_ranks = search.network.num_layers, world.process.world_size
    if num_layers < num_ranks:
        return messages
    segments = [
        Segment(rank, rank * num_layers // num_ranks, (rank + 1) * num_layers // num_ranks - 1)
        for rank in range(num_ranks)
    ]
    sends: dict[int, tuple[float, float]] = {}
    receives: dict[int, tuple[float, float]] = {}
    for rows in sorted({max(1, config.training.minibatch_size // fraction) for fraction in FRACTIONS}):
        shape = Shape(name="posting", strategy="pipeline", minibatch_size=rows * MICROBATCHES,
                      num_microbatches=MICROBATCHES, num_ranks=num_ranks, num_stages=num_ranks)  # fmt: skip
        candidate = search.price(shape, segments)
        if candidate.feasible:
            send, receive = _postings(search, candidate, world)
            num_bytes = _typical_bytes(search, segments, rows)
            sends[num_bytes], receives[num_bytes] = (send, 0.0), (receive, 0.0)
    if not sends:
        return messages
    return messages.model_copy(update={"send": curve(sends), "receive": curve(receives)})


def _typical_bytes(search: Search, segments: Sequence[Segment], rows: int) -> int:
    """Of a message between these stages, in the middle."""
    cuts = [search.model.stage(of.first_layer, of.last_layer).microbatch(rows).output_bytes for of in segments[:-1]]
    return int(statistics.median(cuts))


def _postings(search: Search, candidate: Candidate, world: ProcessWorld) -> tuple[float, float]:
    """Seconds that a message takes of its sender and of its receiver: medians over steps, the mean of all ranks'.

    Within a step they are means: what now and then takes long is a part of every step.
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
        fleet.train(x, y, np.arange(candidate.minibatch_size), learning_rate=1e-30)
        steps.append([sum(seconds[kind] for kind in kinds) for kinds in (SENDS, RECEIVES)])
    every = share_all(world, {world.process.rank: np.median(np.array(steps[WARM_UP:]), axis=0)})
    num_messages = 2 * (candidate.num_stages - 1) * MICROBATCHES
    send, receive = np.sum(np.stack(list(every)), axis=0) / num_messages
    return float(send), float(receive)
