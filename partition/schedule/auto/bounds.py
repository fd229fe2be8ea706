"""A makespan that no schedule of these stages can undercut.

For each stage, on the way of the quickest microbatch (f, i, w: seconds of F, I and W; x: of a message):

    head   time before it can start:            sum of f + x over the stages before it
    turn   time before it can go back:          head + f, then down to the last stage and back
    tail   time that follows its last I:        sum of x + i over the stages before it, then w of stage 0

Between them must lie: all work of the rank after its first head; all I and W of a stage after its turn, together
with the forwards that memory does not admit before the first I. A backward that is quicker whole than split counts
as I and the rest of it as W.
"""

from __future__ import annotations

from dataclasses import dataclass

from partition.schedule.actions import Kind
from partition.schedule.replay_costs import BytesTable, ReplayCosts, SecondsTable


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """Seconds of one stage: over all microbatches, and of the quickest one."""

    forward_s: float
    input_s: float
    weight_s: float
    quick_forward_s: float
    quick_input_s: float
    quick_weight_s: float
    step_s: float

    @property
    def work_s(self) -> float:
        """All that the stage has to do."""
        return self.forward_s + self.input_s + self.weight_s + self.step_s


def busiest_rank_s(costs: ReplayCosts, placement: tuple[int, ...]) -> float:
    """Seconds of work of the busiest rank, steps included."""
    work = [0.0] * (max(placement) + 1)
    for stage, rank in enumerate(placement):
        work[rank] += _add_up(costs, stage).work_s
    return max(work)


def lower_bound_s(costs: ReplayCosts, placement: tuple[int, ...], limits_bytes: tuple[int, ...] = ()) -> float:
    """The largest of the bounds described above; `limits_bytes` of each rank where memory is limited."""
    stages = [_add_up(costs, stage) for stage in range(len(placement))]
    down = _messages_s(costs.send_forward_s, placement, 1)
    up = _messages_s(costs.send_backward_s, placement, -1)
    bound, seen = 0.0, set()
    for index, (stage, rank) in enumerate(zip(stages, placement, strict=True)):
        head = sum(stages[k].quick_forward_s + down[k] for k in range(index))
        turn = (
            head
            + stage.quick_forward_s
            + sum(
                down[k - 1] + stages[k].quick_forward_s + stages[k].quick_input_s + up[k]
                for k in range(index + 1, len(stages))
            )
        )
        tail = sum(up[k + 1] + stages[k].quick_input_s for k in range(index)) + stages[0].quick_weight_s
        turn += _late_forwards(costs, placement, index, limits_bytes) * stage.quick_forward_s
        last_input = max(head + stage.forward_s, turn) + stage.input_s
        bound = max(bound, last_input + stage.weight_s + stage.step_s, last_input + tail + stages[0].step_s)
        if rank not in seen:
            seen.add(rank)
            mine = [other for other, owner in zip(stages, placement, strict=True) if owner == rank]
            bound = max(bound, head + sum(other.work_s for other in mine))
    return bound


def _add_up(costs: ReplayCosts, stage: int) -> _Stage:
    forward, step = _row(costs, Kind.F, stage), _row(costs, Kind.STEP, stage)
    full, first, second = (_row(costs, kind, stage) for kind in (Kind.B, Kind.I, Kind.W))
    whole = full if not first else [a + b for a, b in zip(first, second, strict=True)]
    whole = [min(pair) for pair in zip(whole, full or whole, strict=True)]
    inputs = [min(pair) for pair in zip(first or whole, whole, strict=True)]
    weights = [a - b for a, b in zip(whole, inputs, strict=True)]
    sizes, present = costs.size_class, sorted(set(costs.size_class))
    return _Stage(
        forward_s=sum(forward[size] for size in sizes),
        input_s=sum(inputs[size] for size in sizes),
        weight_s=sum(weights[size] for size in sizes),
        quick_forward_s=min(forward[size] for size in present),
        quick_input_s=min(inputs[size] for size in present),
        quick_weight_s=min(weights[size] for size in present),
        step_s=step[0] if step else 0.0,
    )


def _row(costs: ReplayCosts, kind: Kind, stage: int) -> list[float]:
    """Seconds of a kind for each class; empty where it has no table."""
    return list(costs.seconds[kind][stage]) if kind in costs.seconds else []


def _messages_s(table: SecondsTable, placement: tuple[int, ...], step: int) -> list[float]:
    """Shortest message that leaves each stage; 0 where the neighbour is on the same rank or there is none."""
    return [
        min(row) if 0 <= index + step < len(placement) and placement[index + step] != placement[index] else 0.0
        for index, row in enumerate(table)
    ]


def _late_forwards(costs: ReplayCosts, placement: tuple[int, ...], stage: int, limits_bytes: tuple[int, ...]) -> int:
    """Forwards of a stage that memory does not admit before its first I; 0 on a rank of several stages."""
    rank = placement[stage]
    if not limits_bytes or placement.count(rank) > 1:
        return 0
    kept = _smallest(costs, Kind.F, stage) + (_smallest(costs, Kind.RECV_F, stage) if stage else 0)
    is_sent = stage + 1 < len(placement)
    kept -= max(costs.send_hold_bytes[Kind.SEND_F][stage]) if is_sent and Kind.SEND_F in costs.send_hold_bytes else 0
    if kept <= 0:
        return 0
    return max(0, len(costs.size_class) - (limits_bytes[rank] - costs.static_of(rank)) // kept)


def _smallest(costs: ReplayCosts, kind: Kind, stage: int) -> int:
    table: BytesTable | None = costs.net_bytes.get(kind)
    return min(table[stage]) if table else 0
