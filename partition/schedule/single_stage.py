"""Schedules with one stage a rank: p ranks, rank r holds stage r; m microbatches.

GPipe and the forward pass go stage by stage where a rank holds several (looped: r, r + p, r + 2p, ...).
In the drawings a column is a tick, every action takes one, and B takes two (it is I and W at once).
"""

from __future__ import annotations

from partition.schedule.actions import Kind
from partition.schedule.slots import Shape, Slot


def forward_only(shape: Shape, rank: int) -> list[Slot]:
    """Prediction: every microbatch once through all stages.

    rank 0  F0 F1 F2 ..
    rank 1  .. F0 F1 F2
    """
    stages = range(rank, shape.num_stages, shape.num_ranks)
    return [slot for stage in stages for slot in [Slot(stage, Kind.F)] * shape.num_microbatches]


def gpipe(shape: Shape, rank: int) -> list[Slot]:
    """All forwards, then all backwards (Huang et al. 2019, *GPipe*); m microbatches in flight.

    rank 0  F0 F1 F2 .. .. .. .. .. .. B0 -- B1 -- B2 --
    rank 1  .. F0 F1 F2 .. .. .. B0 -- B1 -- B2 -- .. ..
    rank 2  .. .. F0 F1 F2 B0 -- B1 -- B2 -- .. .. .. ..    idle: (p-1)/(m+p-1) of the makespan
    """
    stages = range(rank, shape.num_stages, shape.num_ranks)
    backward = [slot for stage in reversed(stages) for slot in [Slot(stage, Kind.B)] * shape.num_microbatches]
    return forward_only(shape, rank) + backward


def one_f_one_b(shape: Shape, rank: int) -> list[Slot]:
    """A backward as soon as there is one (Narayanan et al. 2019, *PipeDream*, flushed); p - r in flight.

    rank 0  F0 F1 F2 .. .. .. .. B0 -- F3 B1 -- .. B2 -- .. B3 --
    rank 1  .. F0 F1 .. .. B0 -- F2 B1 -- F3 B2 -- .. B3 -- .. ..
    rank 2  .. .. F0 B0 -- F1 B1 -- F2 B2 -- F3 B3 -- .. .. .. ..    idle: that of GPipe
    """
    forward, backward = [Slot(rank, Kind.F)], [Slot(rank, Kind.B)]
    warmup = min(shape.num_ranks - 1 - rank, shape.num_microbatches)
    return forward * warmup + (forward + backward) * (shape.num_microbatches - warmup) + backward * warmup


def zb_h1(shape: Shape, rank: int) -> list[Slot]:
    """1F1B whose W fill the gaps (Qi et al. 2023, *Zero Bubble Pipeline Parallelism*, H1); p in flight.

    rank 0  F0 F1 F2 .. .. I0 W0 F3 I1 W1 I2 W2 I3 W3
    rank 1  .. F0 F1 .. I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
    rank 2  .. .. F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3    idle: (p-1)(F+I-W), a third of 1F1B's
    """
    return _split_backward(shape, rank, warmup=shape.num_ranks - 1 - rank, delay=rank)


def zb_h2(shape: Shape, rank: int) -> list[Slot]:
    """More forwards at first, so that no rank ever waits (Qi et al. 2023, H2); 2p - 1 in flight.

    rank 0  F0 F1 F2 F3 F4 I0 W0 I1 W1 I2 W2 I3 W3 I4 W4 .. ..
    rank 1  .. F0 F1 F2 I0 F3 I1 F4 I2 W0 I3 W1 I4 W2 W3 W4 ..
    rank 2  .. .. F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 W0 W1 W2 W3 W4    idle in each span: (p-1)(F+I-2W)
    """
    return _split_backward(shape, rank, warmup=2 * (shape.num_ranks - 1 - rank), delay=2 * rank)


def _split_backward(shape: Shape, stage: int, *, warmup: int, delay: int) -> list[Slot]:
    """`warmup` forwards, then F I W in turn, each W `delay` microbatches behind its I."""
    count = shape.num_microbatches
    forward, input_grad, weight_grad = (Slot(stage, kind) for kind in (Kind.F, Kind.I, Kind.W))
    row = [forward] * min(warmup, count)
    for index in range(count):
        row += [forward] if warmup + index < count else []
        row += [input_grad]
        row += [weight_grad] if index >= delay else []
    return row + [weight_grad] * min(delay, count)
