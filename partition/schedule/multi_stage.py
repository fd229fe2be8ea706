"""Schedules with several stages a rank: p ranks, v stages on each, m microbatches."""

from __future__ import annotations

from partition.schedule.actions import Kind
from partition.schedule.single_stage import one_f_one_b
from partition.schedule.slots import Shape, Slot, alternate


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
