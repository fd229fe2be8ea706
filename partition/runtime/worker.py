"""One rank of a candidate: its device, its stages with their optimizers, its clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from partition.errors import DeviceMemoryError
from partition.graph import Category, StageProgram, build_stage_program, recomputed
from partition.ops.sums import ones
from partition.plan import Candidate, Search, StagePlan
from partition.runtime.clock import Clock, SimulatedClock, WallClock
from partition.runtime.cuda import prepare
from partition.runtime.device import RuntimeDevice
from partition.runtime.executor import Observer
from partition.runtime.optimizer import build_optimizer
from partition.runtime.parameters import initialise, take_parameters
from partition.runtime.stage import WIDE_DTYPE, Stage, wide_dtype
from partition.runtime.update import Update
from partition.runtime.world import World


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a worker is made of; a profile puts in ones that take the time, a curvature those of second order."""

    program: Callable[..., StageProgram] = build_stage_program
    stage: Callable[..., Stage] = Stage
    update: Callable[..., Update] = Update
    observe: Observer | None = None


class Worker:
    """One rank: a device, its stages with their optimizers, its clock."""

    def __init__(
        self, search: Search, candidate: Candidate, rank: int, world: World, parts: Parts | None = None
    ) -> None:
        self.rank = rank
        self._parts = parts or Parts()
        self.replica, self.position = divmod(rank, world.ranks_per_replica)
        self.plans = [plan for plan in candidate.stages if plan.rank == rank]
        spec = search.cluster.devices[self.plans[0].device_index]
        dtype: torch.dtype = getattr(torch, search.config.precision.compute)
        rules = search.cluster.rules
        torch_device = world.torch_device(spec)
        prepare(torch_device)
        self.device = RuntimeDevice(spec, dtype, torch_device, rules)
        if candidate.predicted is not None and candidate.predicted.reserved_bytes:
            self.device.check_free(candidate.predicted.reserved_bytes[rank])
        self.device.count(rules.library_bytes, Category.WORKSPACE, "the workspaces of matrix libraries")
        if torch_device.type == "cuda":
            for of_sums in {dtype, WIDE_DTYPE} if search.config.precision.is_mixed else {dtype}:
                ones(of_sums, torch_device)
        self.stages: dict[int, Stage] = {}
        self.updates: dict[int, Update] = {}
        for plan in self.plans:
            self._add_stage(search, candidate, plan)
        is_simulated = spec.kind == "simulated" and not world.is_shared
        self.clock: Clock = SimulatedClock() if is_simulated else WallClock()

    def _add_stage(self, search: Search, candidate: Candidate, plan: StagePlan) -> None:
        build = self._parts.program
        options = {"has_noise": search.model.has_noise, "is_mixed": search.model.is_mixed}
        build = partial(build, **{name: True for name, is_on in options.items() if is_on})
        program = recomputed(build(search.network, plan.first_layer, plan.last_layer), plan.recompute)
        seed, parts = search.config.training.seed, [part for layer in program.layers for part in layer.weighted]
        layers = {part.index: take_parameters(part, self.device, wide_dtype(program)) for part in parts}
        initialise(parts, layers, seed)
        stage = self._parts.stage(search.network, program, self.device, layers, candidate.num_microbatches, seed=seed)
        optimizer = build_optimizer(search.config.optimizer, candidate.learning_rate, stage.parameters, self.device)
        self.stages[plan.stage_index] = stage
        self.updates[plan.stage_index] = self._parts.update(
            stage, optimizer, self.device, search.model.optimizer.workspace_bytes
        )


def build_worker(search: Search, candidate: Candidate, rank: int, world: World, parts: Parts | None) -> Worker:
    """A rank; a device that cannot hold it is told of with the stage.

    Raises DeviceMemoryError.
    """
    try:
        return Worker(search, candidate, rank, world, parts)
    except DeviceMemoryError as error:
        error.stage, error.action = next(plan.stage_index for plan in candidate.stages if plan.rank == rank), "set-up"
        raise
