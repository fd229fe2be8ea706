"""Random uneven costs: stages of different speed and size, microbatches of two sizes, messages, bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from partition.schedule import Kind, ReplayCosts, Schedule, generate, lower, replay

STATIC_BYTES = 10_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """Costs of one pipeline of one stage a rank, and what 1F1B comes to on them."""

    costs: ReplayCosts
    num_ranks: int
    num_microbatches: int
    makespan_1f1b_s: float
    peak_1f1b_bytes: tuple[int, ...]

    @property
    def placement(self) -> tuple[int, ...]:
        """Stage s on rank s."""
        return tuple(range(self.num_ranks))

    def twice_each_peak(self) -> tuple[int, ...]:
        """Limits that give every rank twice what 1F1B needs there for microbatches."""
        return tuple(2 * peak - STATIC_BYTES for peak in self.peak_1f1b_bytes)

    def twice_the_highest_peak(self) -> tuple[int, ...]:
        """Limits of equal devices: twice what 1F1B needs on the rank that needs most."""
        return (max(self.twice_each_peak()),) * self.num_ranks


def uneven_case(seed: int) -> Case:
    """Stages 0.5 to 1.5 long, I and W within a fifth of F; between I and W a layer holds two tensors for one."""
    draw = random.Random(seed)
    ranks = draw.randint(2, 8)
    microbatches = draw.randint(ranks, 3 * ranks)
    has_small_last = draw.random() < 0.3
    scales = (1.0, draw.uniform(0.3, 0.9)) if has_small_last else (1.0,)
    size_class = (0,) * (microbatches - 1) + (int(has_small_last),)
    costs = _with_bytes(_seconds(draw, ranks, size_class, scales), draw, ranks, scales)
    one_by_one = lower(generate("1f1b", num_ranks=ranks, num_microbatches=microbatches))
    result = replay(one_by_one, costs)
    return Case(
        costs=costs,
        num_ranks=ranks,
        num_microbatches=microbatches,
        makespan_1f1b_s=result.makespan_s,
        peak_1f1b_bytes=result.peak_bytes,
    )


def _seconds(draw: random.Random, ranks: int, size_class: tuple[int, ...], scales: Sequence[float]) -> ReplayCosts:
    forward = [draw.uniform(0.5, 1.5) for _ in range(ranks)]
    inputs = [value * draw.uniform(0.8, 1.2) for value in forward]
    weights = [value * draw.uniform(0.8, 1.2) for value in forward]
    message = draw.uniform(0.0, 0.2)
    messages = [message * draw.uniform(0.5, 1.5) for _ in range(ranks)]

    def table(values: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(value * scale for scale in scales) for value in values)

    full = [first + second for first, second in zip(inputs, weights, strict=True)]
    return ReplayCosts(
        size_class=size_class,
        seconds={Kind.F: table(forward), Kind.I: table(inputs), Kind.W: table(weights), Kind.B: table(full)},
        send_forward_s=table(messages),
        send_backward_s=table(messages),
    )


def _with_bytes(seconds: ReplayCosts, draw: random.Random, ranks: int, scales: Sequence[float]) -> ReplayCosts:
    kept = [draw.randint(500, 1500) for _ in range(ranks)]
    inputs = [0] + [draw.randint(20, 100) for _ in range(ranks - 1)]
    outputs = [*inputs[1:], 0]

    def table(values: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(round(value * scale) for scale in scales) for value in values)

    stages = list(zip(kept, inputs, outputs, strict=True))
    net = {
        Kind.RECV_F: table(inputs),
        Kind.F: table([keep + out for keep, _, out in stages]),
        Kind.RECV_B: table(outputs),
        Kind.I: table([keep + into - out for keep, into, out in stages]),
        Kind.W: table([-2 * keep - into for keep, into, _ in stages]),
        Kind.B: table([-keep - out for keep, _, out in stages]),
    }
    peak = {kind: tuple(tuple(max(value, 0) for value in row) for row in rows) for kind, rows in net.items()}
    peak[Kind.B] = table([into + keep // 4 for keep, into, _ in stages])
    return replace(
        seconds,
        net_bytes=net,
        peak_bytes=peak,
        send_hold_bytes={Kind.SEND_F: table(outputs), Kind.SEND_B: table(inputs)},
        static_bytes=(STATIC_BYTES,) * ranks,
    )


def arbitrary_costs(schedule: Schedule, seed: int, classes: int = 2) -> ReplayCosts:
    """Costs without rhyme or reason, to hold two ways of computing against one another."""
    draw = random.Random(seed)
    stages, computing = schedule.num_stages, (Kind.F, Kind.B, Kind.I, Kind.W, Kind.R, Kind.STEP)
    holding = (*computing, Kind.RECV_F, Kind.RECV_B)

    def seconds() -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(draw.random() * 3 for _ in range(classes)) for _ in range(stages))

    def amounts(low: int, high: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(draw.randint(low, high) for _ in range(classes)) for _ in range(stages))

    return ReplayCosts(
        size_class=tuple(draw.randrange(classes) for _ in range(schedule.num_microbatches)),
        seconds={kind: seconds() for kind in computing},
        send_forward_s=seconds(),
        send_backward_s=seconds(),
        net_bytes={kind: amounts(-50, 50) for kind in holding},
        peak_bytes={kind: amounts(0, 90) for kind in holding},
        send_hold_bytes={kind: amounts(0, 40) for kind in (Kind.SEND_F, Kind.SEND_B)},
        static_bytes=tuple(draw.randint(0, 1000) for _ in range(schedule.num_ranks)),
    )
