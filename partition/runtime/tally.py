"""What the ranks tell each other about a step, and what it sums to: the same bits whatever the split.

    numbers of a rank   stop | losses of its last stage | squares of stage a | squares of stage b | padding
    squares of a stage  gradients | weights, if penalised | where noise is measured: gradients without the penalty |
                        gradients of the examples, by part with parameters

Sums run over replicas, microbatches and stages in increasing order, whoever holds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from partition.costs.noise import StepNoise
from partition.graph import Network
from partition.plan import Candidate
from partition.runtime.update import Update
from partition.runtime.world import Numbers


@dataclass(frozen=True, kw_only=True)
class Totals:
    """A step as all ranks know it."""

    loss: float
    penalty: float
    grad_norm: float
    stop_signal: int
    """The signal that asks some rank to stop; 0 where none does."""
    data_grad_square: float | None = None
    """|G|^2, without the penalty; None where noise is not measured."""
    example_square_sum: float | None = None
    """Over all examples the sum of |g_n|^2 / N^2, in the same way."""

    def noise(self, num_examples: int) -> StepNoise | None:
        """Per example: the gradients of the stages carry 1/N of the minibatch's mean."""
        if self.example_square_sum is None or self.data_grad_square is None:
            return None
        return StepNoise(
            num_examples=num_examples,
            example_square=num_examples * self.example_square_sum,
            mean_square=self.data_grad_square,
        )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Where the numbers of one stage stand among those of its rank."""

    stage: int
    replica: int
    rank: int
    num_grads: int
    num_weights: int
    start: int
    num_noise_grads: int = 0
    num_noise_parts: int = 0

    @property
    def grads(self) -> slice:
        """Squares of its gradients."""
        return slice(self.start, self.start + self.num_grads)

    @property
    def weights(self) -> slice:
        """Squares of its weights."""
        return slice(self.grads.stop, self.grads.stop + self.num_weights)

    @property
    def data_grads(self) -> slice:
        """Squares of its gradients without the penalty."""
        return slice(self.weights.stop, self.weights.stop + self.num_noise_grads)

    @property
    def examples(self) -> slice:
        """Sums over the examples of the squares of their gradients, by part with parameters."""
        return slice(self.data_grads.stop, self.data_grads.stop + self.num_noise_parts)


class Tally:
    """The layout of the numbers of every rank of a candidate."""

    def __init__(self, network: Network, candidate: Candidate, *, has_noise: bool = False) -> None:
        self._has_noise = has_noise
        self._l2_penalty = network.l2_penalty
        self._num_losses = candidate.num_microbatches
        self._last_stage = candidate.num_stages - 1
        ends: dict[int, int] = {}
        self._parts: list[_Part] = []
        for plan in candidate.stages:
            units = network.layers[plan.first_layer : plan.last_layer + 1]
            parts = [part for unit in units for part in unit.weighted]
            num_grads = sum(1 + part.has_bias for part in parts)
            part = _Part(
                stage=plan.stage_index,
                replica=plan.replica_index,
                rank=plan.rank,
                num_grads=num_grads,
                num_weights=sum(part.penalised_rows > 0 for part in parts) if network.l2_penalty else 0,
                start=ends.get(plan.rank, 1 + self._num_losses),
                num_noise_grads=num_grads if has_noise else 0,
                num_noise_parts=len(parts) if has_noise else 0,
            )
            ends[plan.rank] = part.examples.stop
            self._parts.append(part)
        self.width = max(ends.values())

    def pack(
        self,
        rank: int,
        updates: Mapping[int, Update],
        losses: Sequence[float] = (),
        stop_signal: int = 0,
        example_squares: Mapping[int, Sequence[float]] | None = None,
    ) -> Numbers:
        """The numbers of a rank; `example_squares` are those of each stage, by part."""
        numbers = np.zeros(self.width)
        numbers[0] = stop_signal
        numbers[1 : 1 + len(losses)] = losses
        for part in self._parts:
            if part.rank == rank:
                numbers[part.grads] = updates[part.stage].grad_squares
                numbers[part.weights] = updates[part.stage].weight_squares
                numbers[part.data_grads] = updates[part.stage].data_grad_squares
                if example_squares:
                    numbers[part.examples] = example_squares[part.stage]
        return numbers

    def norm(self, values: Sequence[Numbers]) -> float:
        """The norm of all gradients; after the sum over replicas each replica has the same ones."""
        return math.sqrt(sum(square for part in self._of_first() for square in values[part.rank][part.grads].tolist()))

    def totals(self, values: Sequence[Numbers]) -> Totals:
        """What the numbers of all ranks come to."""
        losses = [
            loss
            for part in self._parts
            if part.stage == self._last_stage
            for loss in values[part.rank][1 : 1 + self._num_losses].tolist()
        ]
        weights = [square for part in self._of_first() for square in values[part.rank][part.weights].tolist()]
        data_grads = [square for part in self._of_first() for square in values[part.rank][part.data_grads].tolist()]
        examples = [square for part in self._parts for square in values[part.rank][part.examples].tolist()]
        return Totals(
            loss=sum(losses),
            penalty=self._l2_penalty / 2 * sum(weights),
            grad_norm=self.norm(values),
            stop_signal=int(max(of_rank[0] for of_rank in values)),
            data_grad_square=sum(data_grads) if self._has_noise else None,
            example_square_sum=sum(examples) if self._has_noise else None,
        )

    def _of_first(self) -> list[_Part]:
        return [part for part in self._parts if part.replica == 0]
