"""What a replay charges for each action: seconds, and bytes taken and given back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from partition.schedule.actions import NO_MICROBATCH, Action, Kind, Schedule

SecondsTable = tuple[tuple[float, ...], ...]
"""seconds, by stage and class of microbatch"""
BytesTable = tuple[tuple[int, ...], ...]
"""bytes, by stage and class of microbatch"""


@dataclass(frozen=True, kw_only=True)
class ReplayCosts:
    """Tables indexed [kind][stage][class]; microbatches of equal size share a class. STEP has class 0 only.

    A kind without a table costs nothing.
    """

    size_class: tuple[int, ...]
    """class of each microbatch"""
    seconds: Mapping[Kind, SecondsTable]
    """duration of F, B, I, W, R and STEP, of posting each SEND and RECV, and of adding up a stage's gradients
    (REDUCE_GRAD), which has class 0 too"""
    send_forward_s: SecondsTable
    """seconds that an activation leaving the stage occupies its link, latency included"""
    send_backward_s: SecondsTable
    """seconds that a gradient leaving the stage occupies its link, latency included"""
    net_bytes: Mapping[Kind, BytesTable] = field(default_factory=dict)
    """bytes held more after the action than before it: F, B, I, W, R, RECV_F, RECV_B, STEP"""
    peak_bytes: Mapping[Kind, BytesTable] = field(default_factory=dict)
    """most bytes held more during the action than before it, same kinds"""
    send_hold_bytes: Mapping[Kind, BytesTable] = field(default_factory=dict)
    """bytes of the buffer that a SEND_F or SEND_B keeps until the channel's next send, counted when it was made"""
    static_bytes: tuple[int, ...] = ()
    """bytes that each rank holds throughout: parameters, gradients, optimizer state"""

    def seconds_of(self, action: Action) -> float:
        """Duration of an action on its rank; 0 for what has no table."""
        table = self.seconds.get(action.kind)
        if table is None:
            return 0.0
        is_whole = action.microbatch == NO_MICROBATCH
        return table[action.stage][0 if is_whole else self.size_class[action.microbatch]]

    def transfer_s(self, send: Action) -> float:
        """Seconds that the message of a send occupies its link."""
        table = self.send_forward_s if send.kind is Kind.SEND_F else self.send_backward_s
        return table[send.stage][self.size_class[send.microbatch]]

    def static_of(self, rank: int) -> int:
        """Bytes that a rank holds throughout; zero where none are given."""
        return self.static_bytes[rank] if self.static_bytes else 0


def stage_costs(
    *,
    num_microbatches: int,
    forward_s: Sequence[float],
    input_grad_s: Sequence[float],
    weight_grad_s: Sequence[float],
    send_s: Sequence[float],
    kept_bytes: Sequence[int],
    recomputed: Collection[int] = (),
) -> ReplayCosts:
    """Costs given stage by stage, microbatches alike; B is as long as I and W together.

    A stage keeps `kept_bytes` of a microbatch from F to B, and from I to W twice that: the input of each layer and
    the gradient of what it computed. `recomputed` stages keep nothing of it until R, which is a forward again. What is
    on its way is not counted.
    """
    stages = list(zip(forward_s, input_grad_s, weight_grad_s, kept_bytes, send_s, strict=True))
    seconds = {
        Kind.F: tuple((forward,) for forward, *_ in stages),
        Kind.B: tuple((input_grad + weight_grad,) for _, input_grad, weight_grad, *_ in stages),
        Kind.I: tuple((input_grad,) for _, input_grad, *_ in stages),
        Kind.W: tuple((weight_grad,) for _, _, weight_grad, *_ in stages),
        Kind.R: tuple((forward,) for forward, *_ in stages),
    }
    change = {Kind.F: 1, Kind.B: -1, Kind.I: 1, Kind.W: -2, Kind.R: 1}
    kept = {
        kind: tuple(
            (0 if kind is Kind.F and index in recomputed else factor * kept,) for index, kept in enumerate(kept_bytes)
        )
        for kind, factor in change.items()
    }
    sends = tuple((send,) for *_, send in stages)
    return ReplayCosts(
        size_class=(0,) * num_microbatches,
        seconds=seconds,
        send_forward_s=sends,
        send_backward_s=sends,
        net_bytes=kept,
        peak_bytes={kind: tuple((max(change[kind], 0) * kept,) for kept in kept_bytes) for kind in change},
    )


def uniform_costs(
    schedule: Schedule,
    *,
    forward_s: float = 1.0,
    input_grad_s: float = 1.0,
    weight_grad_s: float = 1.0,
    send_s: float = 0.0,
) -> ReplayCosts:
    """Every stage and microbatch alike, B as long as I and W together: the unit costs of published formulas."""
    seconds = {
        Kind.F: forward_s,
        Kind.B: input_grad_s + weight_grad_s,
        Kind.I: input_grad_s,
        Kind.W: weight_grad_s,
        Kind.R: forward_s,
    }
    return ReplayCosts(
        size_class=(0,) * schedule.num_microbatches,
        seconds={kind: ((value,),) * schedule.num_stages for kind, value in seconds.items()},
        send_forward_s=((send_s,),) * schedule.num_stages,
        send_backward_s=((send_s,),) * schedule.num_stages,
    )
