"""Rows of the named schedules: p ranks, v stages on each, m microbatches.

A row is written as slots, which name stages and kinds; microbatches are counted afterwards. With one stage a rank,
rank r holds stage r; with several they are looped (r, r + p, r + 2p, ...) or lie in a V (r and 2p - 1 - r).
In the drawings a column is a tick, every action takes one, and B takes two (it is I and W at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from partition.schedule.actions import Action, Kind


class Slot(NamedTuple):
    """An action whose microbatch is still to be counted: the k-th slot of a stage and kind is microbatch k."""

    stage: int
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a schedule is."""

    num_ranks: int
    num_stages: int
    num_microbatches: int

    @property
    def stages_per_rank(self) -> int:
        """Virtual stages: how many stages one rank holds."""
        return self.num_stages // self.num_ranks


def count_microbatches(slots: Sequence[Slot], num_microbatches: int) -> tuple[Action, ...]:
    """Number the slots; those beyond the last microbatch are left out."""
    rest = {slot: iter(_numbered(slot, num_microbatches)) for slot in set(slots)}
    return tuple(action for slot in slots if (action := next(rest[slot], None)) is not None)


@cache
def _numbered(slot: Slot, num_microbatches: int) -> tuple[Action, ...]:
    """One action for each microbatch; the same ones for all schedules of so many."""
    return tuple(Action(slot.stage, slot.kind, microbatch) for microbatch in range(num_microbatches))


def alternate(first: Sequence[Slot], second: Sequence[Slot]) -> list[Slot]:
    """One of each in turn, as long as the first lasts, then the rest of the second."""
    pairs = [slot for pair in zip(first, second, strict=False) for slot in pair]
    return pairs + list(second[len(first) :])


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


def looped(shape: Shape) -> tuple[int, ...]:
    """Stages dealt to ranks in turn, s on s modulo p: 0 1 2 0 1 2."""
    return tuple(stage % shape.num_ranks for stage in range(shape.num_stages))


def v_shaped(shape: Shape) -> tuple[int, ...]:
    """Stages down the ranks and up again: 0 1 2 2 1 0. The first rank holds the first stage and the last."""
    down = tuple(range(shape.num_ranks))
    return down + down[::-1]


def interleaved_1f1b(shape: Shape, rank: int) -> list[Slot]:
    """1F1B over v shorter stages a rank, in groups of p microbatches (Narayanan et al. 2021, *Megatron-LM*).

    p = 2, v = 2, m = 2; rank r holds stages r and r + 2
    rank 0  0F0 0F1 2F0 2F1 ... ... 2B0 --- ... 2B1 --- 0B0 --- 0B1 ---
    rank 1  ... 1F0 1F1 3F0 3B0 --- 3F1 3B1 --- 1B0 --- 1B1 --- ... ...    idle: (p-1)/v of F+B of a rank
    """
    if shape.stages_per_rank == 1:
        return one_f_one_b(shape, rank)
    stages = range(rank, shape.num_stages, shape.num_ranks)
    sizes = _group_sizes(shape)
    forward = [Slot(stage, Kind.F) for size in sizes for stage in stages for _ in range(size)]
    backward = [Slot(stage, Kind.B) for size in sizes for stage in reversed(stages) for _ in range(size)]
    warmup = (shape.stages_per_rank - 1) * sizes[0] + 2 * (shape.num_ranks - 1 - rank)
    return forward[:warmup] + alternate(forward[warmup:], backward)


def interleaved_forwards(shape: Shape, rank: int) -> dict[int, int]:
    """How many forwards of each stage of a rank precede its first backward under 1F1B, interleaved or not."""
    count, stages = shape.num_microbatches, range(rank, shape.num_stages, shape.num_ranks)
    if shape.stages_per_rank == 1:
        return {rank: min(shape.num_ranks - rank, count)}
    sizes = _group_sizes(shape)
    left = (shape.stages_per_rank - 1) * sizes[0] + 2 * (shape.num_ranks - 1 - rank) + 1
    done = dict.fromkeys(stages, 0)
    for size in sizes:
        for stage in stages:
            done[stage] += min(size, left)
            left -= min(size, left)
    return done


def _group_sizes(shape: Shape) -> list[int]:
    """Microbatches that pass all stages of a rank before the next ones start: at least p, and as even as can be."""
    groups = max(1, shape.num_microbatches // shape.num_ranks)
    size, larger = divmod(shape.num_microbatches, groups)
    return [size + 1] * larger + [size] * (groups - larger)


def zbv(shape: Shape, rank: int) -> list[Slot]:
    """No idle within a rank's span at the memory of 1F1B (Qi et al. 2024, *Pipeline Parallelism with
    Controllable Memory*, V-ZB); rank r holds stages r and 2p - 1 - r.

    p = 2, m = 3; rank 1 holds the turn of the V
    rank 0  0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0I0 0W0 3F2 3I2 3W2 0I1 0W1 0I2 0W2 ...
    rank 1  ... 1F0 2F0 1F1 2F1 2I0 2W0 1F2 1I0 1W0 2F2 2I1 2W1 1I1 2I2 1I2 1W1 2W2 1W2

    Written for at least 2p - 1 microbatches; with fewer, the others are left out of that row.
    """
    count = max(shape.num_microbatches, 2 * shape.num_ranks - 1)
    after = shape.num_ranks - rank
    down, up = (tuple(Slot(stage, kind) for kind in (Kind.F, Kind.I, Kind.W)) for stage in _both(shape, rank))
    row = [down[0]] * (2 * after - 1) + [up[0], down[0]] * rank + [*up] * after
    steady = count - (2 * after - 1) - rank
    row += [*down, *up] * steady + [*down[1:], *up] * (count - rank - after - steady)
    row += [down[1], up[1]] * rank + [*down[1:]] * after
    return row + [up[2]] * rank + [down[2]] * rank


def _both(shape: Shape, rank: int) -> tuple[int, int]:
    """The stages of a rank on the way down and up."""
    return rank, shape.num_stages - 1 - rank
