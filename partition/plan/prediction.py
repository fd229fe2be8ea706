"""Memory of prediction: a forward pass that keeps nothing, on the layout that a candidate trains on.

rank 0   0F0  0SEND_F0  0F1  0SEND_F1  0F2 ...      parameters, and of a microbatch one input and one output
rank 1        1RECV_F0  1F0  1RECV_F1  1F1 ...      of a layer at a time; what is sent stays until the next send
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from partition.costs import CostModel
from partition.costs.stage import rank_static_bytes
from partition.graph import Category, Program, StageProgram, Variable
from partition.graph.program import Give, Take
from partition.plan.candidate import Candidate
from partition.plan.search import Search
from partition.schedule import Action, Kind, Schedule, generate, lower

MOST_IN_ONE_PASS = 64
"""Microbatches of one pass of prediction; their messages are listed before it begins."""


@cache
def prediction_schedule(placement: tuple[int, ...], num_microbatches: int) -> Schedule:
    """What the ranks of one replica do in a pass."""
    num_ranks = max(placement) + 1
    return lower(generate("forward_only", num_ranks=num_ranks, num_microbatches=num_microbatches, placement=placement))


def prediction_sizes(num_examples: int, rows: int) -> tuple[int, ...]:
    """Examples of each microbatch of a pass: as many as training has at most, and what is left."""
    full, rest = divmod(num_examples, rows)
    return (rows,) * full + (rest,) * (rest > 0)


@dataclass(frozen=True, kw_only=True)
class PredictionMemory:
    """What one rank holds for a pass of prediction, at the instant of most."""

    parameters_bytes: int
    activations_bytes: int
    """Inputs and outputs of layers."""
    boundary_bytes: int
    """Outputs to be sent, or under way."""
    workspace_bytes: int
    data_bytes: int
    peak_bytes: int
    """Of the forward alone: the sum of these."""
    training_state_bytes: int
    """Gradients, optimizer state and losses: held besides where the model has been built for training."""

    @property
    def peak_beside_training_bytes(self) -> int:
        """The most that a model held for training holds while it predicts."""
        return self.peak_bytes + self.training_state_bytes


def prediction_memory(
    search: Search, candidate: Candidate, num_examples: int | None = None
) -> tuple[PredictionMemory, ...]:
    """The memory of every rank while each replica predicts so many examples, by default as many as a pass takes.

    Exact, like the memory of training: the runtime's devices hold these bytes while `Fleet.predict` runs. Without a
    layout of the candidate's own, as of sharded ones, there is nothing to tell.
    """
    if not candidate.stages or candidate.sharding:
        return ()
    found: list[PredictionMemory] = []
    for replica, layout in enumerate(search.layouts(candidate)):
        rows = max(layout.sizes)
        most = rows * MOST_IN_ONE_PASS
        sizes = prediction_sizes(most if num_examples is None else min(most, num_examples), rows)
        own = [plan for plan in candidate.stages if plan.replica_index == replica]
        costs = [search.model.stage(*plan.layers) for plan in own]
        schedule = prediction_schedule(layout.schedule.placement, len(sizes))
        for rank in range(schedule.num_ranks):
            stages = schedule.stages_of(rank)
            static = rank_static_bytes([costs[stage] for stage in stages], layout.num_microbatches)
            programs = {stage: costs[stage].program for stage in stages}
            growth = _Walk(programs, sizes, search.model).most(schedule.rows[rank])
            found.append(_memory(static, growth, search.model.rules.library_bytes))
    return tuple(found)


def _memory(static: Mapping[Category, int], growth: Mapping[Category, int], library_bytes: int) -> PredictionMemory:
    parts = {
        Category.PARAMETERS: static[Category.PARAMETERS],
        **{category: growth.get(category, 0) for category in _OF_A_PASS},
    }
    parts[Category.WORKSPACE] += library_bytes
    named = {f"{category}_bytes": num_bytes for category, num_bytes in parts.items()}
    others = sum(static.values()) - static[Category.PARAMETERS] - library_bytes
    return PredictionMemory(**named, peak_bytes=sum(parts.values()), training_state_bytes=others)


_OF_A_PASS = (Category.ACTIVATIONS, Category.BOUNDARY, Category.WORKSPACE, Category.DATA)


class _Walk:
    """The buffers of one rank along its row, taken and given back where the runtime does."""

    def __init__(self, programs: Mapping[int, StageProgram], sizes: Sequence[int], model: CostModel) -> None:
        self.programs = programs
        self.sizes = sizes
        self.model = model
        self._under_way: dict[int, int] = {}
        """Of a stage the microbatch that it sent last."""

    def most(self, row: Sequence[Action]) -> Mapping[Category, int]:
        """What is held at the (first) instant of most."""
        held: Counter[Category] = Counter()
        total, peak, at_peak = 0, 0, Counter[Category]()
        for action in row:
            for category, num_bytes in self._changes(action):
                held[category] += num_bytes
                total += num_bytes
                if total > peak:
                    peak, at_peak = total, held.copy()
        return at_peak

    def _changes(self, action: Action) -> Iterator[tuple[Category, int]]:
        stage, kind, microbatch = action
        program = self.programs[stage]
        if kind is Kind.RECV_F:
            yield self._bytes(program.input, microbatch, 1)
        elif kind is Kind.SEND_F:
            # The message before has gone by now, and its buffer with it.
            if stage in self._under_way:
                yield self._bytes(program.prediction, self._under_way[stage], -1)
            self._under_way[stage] = microbatch
        elif kind is Kind.F:
            if stage - 1 in self.programs:
                yield self._bytes(program.input, microbatch, 1)
                yield self._bytes(self.programs[stage - 1].prediction, microbatch, -1)
            yield from self._run(program.predict, microbatch)
            if program.is_last:
                yield self._bytes(program.prediction, microbatch, -1)

    def _run(self, program: Program, microbatch: int) -> Iterator[tuple[Category, int]]:
        for instruction in program:
            if isinstance(instruction, Take | Give):
                yield self._bytes(instruction.variable, microbatch, 1 if isinstance(instruction, Take) else -1)

    def _bytes(self, variable: Variable, microbatch: int, sign: int) -> tuple[Category, int]:
        num_bytes = variable.num_bytes(self.sizes[microbatch], self.model.itemsize)
        return variable.category, sign * self.model.rules.block_bytes(num_bytes)
