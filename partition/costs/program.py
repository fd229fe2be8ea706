"""What one program of a stage costs: bytes to the byte and kernels of an action, for any microbatch size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

from partition.costs.allocator import EXACT, AllocatorRules
from partition.costs.block_work import Work
from partition.costs.hardware import Device
from partition.costs.memory import MemoryEffect, MemoryStep, memory_effect, memory_steps
from partition.costs.work import operator_key, program_work, seconds_on
from partition.graph import LossRecord, Program
from partition.graph.program import operators


class PricedProgram:
    """A program for any microbatch size."""

    def __init__(self, program: Program, itemsize: int, loss: LossRecord, rules: AllocatorRules = EXACT) -> None:
        self._program = program
        self._itemsize = itemsize
        self._loss = loss
        self._rules = rules

    @cached_property
    def _steps(self) -> tuple[MemoryStep, ...]:
        return memory_steps(self._program, self._itemsize)

    def memory(self, rows: int) -> MemoryEffect:
        """Bytes taken and given on a microbatch of `rows` examples."""
        return memory_effect(self._steps, rows, self._rules)

    def kernels(self, rows: int) -> tuple[Work, ...]:
        """Operations and bytes moved of every kernel, in order."""
        return program_work(self._program, rows, self._itemsize, self._loss)

    @cached_property
    def operator_counts(self) -> Mapping[str, int]:
        """How often each operator runs, by its key in a costs file."""
        return Counter(operator_key(operator, self._loss) for operator in operators(self._program))


class ProgramCost:
    """One program on one microbatch size; what is never asked for is never computed."""

    def __init__(self, program: PricedProgram, rows: int) -> None:
        self._program = program
        self._rows = rows
        self._seconds: dict[object, float] = {}

    @cached_property
    def memory(self) -> MemoryEffect:
        """Bytes taken and given."""
        return self._program.memory(self._rows)

    @cached_property
    def kernels(self) -> tuple[Work, ...]:
        """Operations and bytes moved of every kernel, in order."""
        return self._program.kernels(self._rows)

    def seconds(self, device: Device) -> float:
        """Seconds on a device; summed once for each kind of device."""
        if device.rates not in self._seconds:
            profile = device.profile
            self._seconds[device.rates] = (
                seconds_on(device, self.kernels)
                if profile is None
                else profile.operators_s(self._program.operator_counts, self._rows)
            )
        return self._seconds[device.rates]

    def least_seconds(self, device: Device) -> float:
        """Seconds at the best rate of a microbatch of any size: of arithmetic alone where nothing is measured."""
        if device.profile is not None:
            return device.profile.best_operators_s(self._program.operator_counts, self._rows)
        return sum(work.flop for work in self.kernels) / device.flop_per_s
