"""The devices, stages and executors of one candidate, with all ranks in one process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.data.rows import Examples
from partition.errors import DeviceMemoryError, RunError
from partition.graph import Category, build_stage_program
from partition.plan import Candidate, Layout, Search, Segment, replay_costs
from partition.plan.microbatches import microbatch_sizes, short_minibatch_sizes
from partition.runtime.channel import LocalChannels
from partition.runtime.clock import Clock, SimulatedClock, WallClock
from partition.runtime.device import RuntimeDevice
from partition.runtime.executor import Executor, Step, run_in_turn
from partition.runtime.feed import MinibatchFeed
from partition.runtime.optimizer import build_optimizer
from partition.runtime.parameters import initialise
from partition.runtime.stage import Frame, Stage, take_parameters
from partition.schedule import ReplayCosts
from partition.units import format_bytes


class Worker:
    """One rank: a device, its stage, its optimizer, its clock."""

    def __init__(self, search: Search, candidate: Candidate, rank: int) -> None:
        plan, config = candidate.stages[rank], search.config
        dtype: torch.dtype = getattr(torch, config.precision.compute)
        self.device = RuntimeDevice(search.cluster.devices[plan.device_index], dtype)
        program = build_stage_program(search.network, plan.first_layer, plan.last_layer)
        layers = {layer.index: take_parameters(layer, self.device) for layer in program.layers}
        initialise(program.layers, layers, config.training.seed)
        self.stage = Stage(search.network, program, self.device, layers, candidate.num_microbatches)
        self.optimizer = build_optimizer(config.optimizer, candidate.learning_rate, self.stage.parameters, self.device)
        self.workspace_bytes = search.model.optimizer.workspace_bytes
        self.clock: Clock = SimulatedClock() if self.device.spec.kind == "simulated" else WallClock()
        self.grad_squares: list[float] = []
        self.weight_squares: list[float] = []

    def update(self) -> None:
        """The optimizer step, after the norms of the gradients and of the penalised weights have been taken."""
        grads = [parameter.grad for parameter in self.stage.parameters if parameter.grad is not None]
        weights = [of.weight_OI for of in self.stage.layers.values()] if self.stage.network.l2_penalty else []
        squares = self._sums_of_squares([*grads, *weights])
        self.grad_squares, self.weight_squares = squares[: len(grads)], squares[len(grads) :]
        # What the optimizer's kernel allocates for itself.
        self.device.count(self.workspace_bytes, Category.WORKSPACE, "the optimizer's workspace")
        self.optimizer.step()
        self.device.count(-self.workspace_bytes, Category.WORKSPACE, "")

    @torch.no_grad()
    def _sums_of_squares(self, tensors: list[Tensor]) -> list[float]:
        """The sum of squares of each tensor: row by row on the device, rows together in float64.

        One float32 sum over all of a large tensor would be good to three or four digits only.
        """
        rows = [tensor if tensor.dim() == 2 else tensor.unsqueeze(0) for tensor in tensors]
        norms = self.device.take((sum(map(len, rows)),), Category.WORKSPACE, "norms")
        parts = torch.split(norms, [len(of) for of in rows])
        for of, part in zip(rows, parts, strict=True):
            torch.linalg.vector_norm(of, dim=1, out=part)
        squares = np.square(norms.cpu().numpy(), dtype=np.float64)
        self.device.give(norms, Category.WORKSPACE)
        ends = np.cumsum([len(of) for of in rows])
        return [float(part.sum()) for part in np.split(squares, ends[:-1])]


def _build_worker(search: Search, candidate: Candidate, rank: int) -> Worker:
    try:
        return Worker(search, candidate, rank)
    except DeviceMemoryError as error:
        error.stage, error.action = rank, "set-up"
        raise


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step reports; sums run over microbatches and layers in order, whatever the split."""

    loss: float
    penalty: float
    grad_norm: float
    step_s: float


class Fleet:
    """All ranks of a candidate in one process."""

    def __init__(self, search: Search, candidate: Candidate) -> None:
        self.search = search
        self.candidate = candidate
        self.segments = [Segment(stage.device_index, stage.first_layer, stage.last_layer) for stage in candidate.stages]
        self._layouts: dict[int, tuple[Layout, ReplayCosts]] = {}
        self.workers = [_build_worker(search, candidate, rank) for rank in range(candidate.num_stages)]

    def train(self, x: Examples, y: Examples, examples: NDArray[np.int64]) -> StepResult:
        """One optimizer step on the given examples, at most a minibatch of them."""
        start_s = self._align_clocks()
        layout, costs = self._priced(len(examples))
        step = Step(
            sizes=layout.sizes,
            feed=MinibatchFeed(x, y, examples, layout.sizes),
            seconds=costs.seconds_of,
        )
        channels = LocalChannels(layout.schedule.placement, lambda key: costs.transfer_s(key.send))
        executors = [
            Executor(
                rank=rank,
                stages={rank: worker.stage},
                channels=channels,
                clock=worker.clock,
                update=worker.update,
            )
            for rank, worker in enumerate(self.workers)
        ]
        run_in_turn(executors, layout.schedule.rows, step)
        for worker in self.workers:
            worker.device.synchronize()
        return self._result(layout, self._align_clocks() - start_s)

    def _priced(self, num_examples: int) -> tuple[Layout, ReplayCosts]:
        """The candidate's layout, or the part of it that a short minibatch needs, and what its actions cost."""
        if num_examples not in self._layouts:
            layout = self._layout(num_examples)
            costs = replay_costs(layout, self.segments, self.search.cluster, self.search.model)
            self._layouts[num_examples] = (layout, costs)
        return self._layouts[num_examples]

    def _layout(self, num_examples: int) -> Layout:
        of = self.candidate
        sizes = microbatch_sizes(of.minibatch_size, of.num_microbatches)
        return Layout.of(of.schedule, of.num_stages, short_minibatch_sizes(sizes, num_examples))

    def _align_clocks(self) -> float:
        """A step is over when its last rank is done, and the next begins then."""
        now_s = max(worker.clock.now_s for worker in self.workers)
        for worker in self.workers:
            worker.clock.wait_until(now_s)
        return now_s

    def _result(self, layout: Layout, step_s: float) -> StepResult:
        losses = self.workers[-1].stage.losses_M[: len(layout.sizes)].tolist()
        grad_squares = [square for worker in self.workers for square in worker.grad_squares]
        weight_squares = [square for worker in self.workers for square in worker.weight_squares]
        return StepResult(
            loss=sum(losses),
            penalty=self.search.network.l2_penalty / 2 * sum(weight_squares),
            grad_norm=math.sqrt(sum(grad_squares)),
            step_s=step_s,
        )

    def predict(self, x: Examples) -> Iterator[NDArray[Any]]:
        """The logits of all rows, one microbatch after another, in no more memory than training takes."""
        for start in range(0, len(x), self.candidate.microbatch_size):
            yield self._predict(x, np.arange(start, min(start + self.candidate.microbatch_size, len(x))))

    def _predict(self, x: Examples, examples: NDArray[np.int64]) -> NDArray[Any]:
        feed = MinibatchFeed(x, x, examples, (len(examples),))
        frame = Frame(microbatch=0, rows=len(examples), weight=1.0, is_first=True, feed=feed)
        output = self.workers[0].stage.predict(frame)
        for sender, receiver in pairwise(self.workers):
            following = Frame(microbatch=0, rows=len(examples), weight=1.0, is_first=True)
            receiver.stage.receive(receiver.stage.program.input, following).copy_(output)
            sender.stage.give_back(sender.stage.program.prediction, frame)
            frame, output = following, receiver.stage.predict(following)
        logits = output.cpu().numpy().copy()
        self.workers[-1].stage.give_back(self.workers[-1].stage.program.prediction, frame)
        return logits

    def parameters(self) -> list[Tensor]:
        """All parameters in canonical order: layer by layer, weight before bias."""
        return [parameter for worker in self.workers for parameter in worker.stage.parameters]


def check_devices(search: Search, candidate: Candidate) -> None:
    """Refuse devices that are not there, clocks that do not mix, and what this machine cannot hold.

    Raises RunError with both figures.
    """
    used = [search.cluster.devices[stage.device_index] for stage in candidate.stages]
    kinds = sorted({device.kind for device in used})
    if len(kinds) > 1 and "simulated" in kinds:
        raise RunError(
            f"{candidate.name} uses devices of kind {' and '.join(kinds)}: a simulated clock and the wall's cannot be "
            "compared; give all devices of cluster.devices one kind"
        )
    for device in used:
        if device.kind == "cuda" and int(device.name.split(":")[1]) >= torch.cuda.device_count():
            raise RunError(
                f"{device.name} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
                "plan here and train where it is, or set cluster.devices.kind=simulated"
            )
    on_host = zip(used, candidate.stages, strict=True)
    needed = sum(stage.memory.peak_bytes for device, stage in on_host if device.kind != "cuda")
    free = host_free_bytes()
    if free is not None and needed > free:
        raise RunError(
            f"{candidate.name} needs {format_bytes(needed)} of this machine's memory, {format_bytes(free)} are free; "
            "plan here and train on a larger machine, or take a smaller model"
        )


def host_free_bytes() -> int | None:
    """Memory that the operating system says can be had without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None
