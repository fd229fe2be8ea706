"""The ranks of a candidate that live in this process, and what they run, hold and cost; see `workers.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from partition.plan import Candidate, Layout, Search
from partition.plan.microbatches import microbatch_sizes
from partition.runtime.channel import Channels, MessageKey, NobodyThere
from partition.runtime.clock import SimulatedClock
from partition.runtime.executor import Executor
from partition.runtime.feed import MinibatchFeed
from partition.runtime.made_up import made_up_examples
from partition.runtime.parameters import Parameters
from partition.runtime.step import Step
from partition.runtime.tally import Tally
from partition.runtime.turns import Run, run_in_turn
from partition.runtime.worker import Parts, Worker, build_worker
from partition.runtime.world import LocalWorld, World
from partition.schedule import Kind, ReplayCosts, Schedule

_UPDATES = (Kind.REDUCE_GRAD, Kind.STEP)


class Ranks:
    """All ranks of a candidate, or one among others' processes, and the rows that they run."""

    def __init__(
        self, search: Search, candidate: Candidate, world: World | None = None, parts: Parts | None = None
    ) -> None:
        self.search = search
        self.candidate = candidate
        self._observe = parts.observe if parts else None
        self.world = world or LocalWorld(candidate.num_replicas, candidate.num_devices // candidate.num_replicas)
        self.tally = Tally(search.network, candidate, has_noise=search.model.has_noise)
        self.workers = [build_worker(search, candidate, rank, self.world, parts) for rank in self.world.ranks]
        self._priced: dict[tuple[int, int], tuple[Layout, ReplayCosts]] = {}
        self._on_gpus = [worker for worker in self.workers if worker.device.torch_device.type == "cuda"]
        if self.world.is_shared and self._on_gpus:
            self.rehearse()

    def rehearse(self) -> None:
        """Run the actions of a minibatch but its update on made-up rows, with nobody at the other end of a message.

        What a GPU does for the first time, to load a kernel or to set up a library, waits until everything on it is
        done. A message that was posted early and waits for this very action would then wait for ever. Gradients and
        losses of the first minibatch overwrite what this leaves.
        """
        size = self.candidate.minibatch_size
        x, y = made_up_examples(self.search, size)
        runs: list[Run] = []
        for replica, _, part in self._parts(np.arange(size)):
            layout, _ = self._priced_layout(replica, len(part))
            feed = MinibatchFeed(x, y, part, layout.sizes)
            step = Step(sizes=layout.sizes, weight=1.0 / size, feed=feed, seconds=no_seconds)
            for worker in self.workers:
                if worker.replica == replica:
                    row = [one for one in layout.schedule.rows[worker.position] if one.kind not in _UPDATES]
                    runs.append((self._executor(worker, NobodyThere()), row, step))
        run_in_turn(runs)

    def runs(
        self, replica: int, schedule: Schedule, step: Step, transfer_s: Callable[[MessageKey], float]
    ) -> list[Run]:
        """An executor with its row for every rank of a replica that lives here; `schedule` is lowered."""
        channels = self.world.channels(replica, schedule.placement, transfer_s)
        workers = [worker for worker in self.workers if worker.replica == replica]
        return [(self._executor(worker, channels), schedule.rows[worker.position], step) for worker in workers]

    def _executor(self, worker: Worker, channels: Channels) -> Executor:
        return Executor(
            rank=worker.rank,
            stages=worker.stages,
            updates=worker.updates,
            channels=channels,
            world=self.world,
            clock=worker.clock,
            tally=self.tally,
            norm_limit=self.search.config.optimizer.max_grad_norm,
            observe=self._observe,
        )

    def _parts(self, examples: NDArray[np.int64]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Every replica with a rank in this process, and its share of the examples with the place of the first."""
        ends = np.cumsum(microbatch_sizes(len(examples), self.candidate.num_replicas)).tolist()
        local = {worker.replica for worker in self.workers}
        spans = enumerate(pairwise([0, *ends]))
        return ((replica, first, examples[first:end]) for replica, (first, end) in spans if replica in local)

    def _priced_layout(self, replica: int, num_examples: int) -> tuple[Layout, ReplayCosts]:
        """The replica's layout, or the part of it that a short minibatch needs, and what its actions cost."""
        key = (replica, num_examples)
        if key not in self._priced:
            planned = self.search.layouts(self.candidate)[replica]
            layout = planned if num_examples == sum(planned.sizes) else planned.short(num_examples)
            self._priced[key] = (layout, self.search.costs_of(self.candidate, layout, replica))
        return self._priced[key]

    def peak_bytes(self) -> dict[int, int | None]:
        """The most that each rank here has held at once."""
        return {worker.rank: worker.device.measured_peak_bytes for worker in self.workers}

    @property
    def has_simulated_clock(self) -> bool:
        """Whether seconds are the cost model's."""
        return any(isinstance(worker.clock, SimulatedClock) for worker in self.workers)

    def layers(self) -> dict[int, Parameters]:
        """The parameters of every layer and norm here, those of a replica's first copy, in increasing order."""
        found = {
            index: of
            for worker in reversed(self.workers)
            for stage in worker.stages.values()
            for index, of in stage.layers.items()
        }
        return {index: found[index] for index in sorted(found)}

    def parameters(self) -> list[Tensor]:
        """All parameters that live here in canonical order: layer by layer, weight before bias."""
        return [tensor for of in self.layers().values() for tensor in of.tensors]


def no_seconds(_: object) -> float:
    """What actions take where nobody asks."""
    return 0.0
