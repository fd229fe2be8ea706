"""What one microbatch of the largest size takes and gives back at each stage, for schedulers that plan ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from partition.schedule.actions import Kind
from partition.schedule.replay_costs import BytesTable, ReplayCosts


@dataclass(frozen=True, kw_only=True)
class StageBytes:
    """Bytes of one stage and microbatch; send buffers count as given back at once."""

    receive_bytes: int
    """taken by a received input"""
    receive_gradient_bytes: int
    after_forward: int
    """change by F"""
    after_backward: int
    """change by I, or by B"""
    after_weight: int
    forward_bytes: int
    """most bytes that F takes"""
    backward_bytes: int
    """most bytes that a backward takes, with its received gradient"""

    @property
    def kept_bytes(self) -> int:
        """Held from F to the backward."""
        return self.receive_bytes + self.after_forward

    def arriving(self, direction: int) -> int:
        """Taken by a message: an input (direction 1) or a gradient (-1)."""
        return self.receive_bytes if direction > 0 else self.receive_gradient_bytes


def bytes_of_stages(costs: ReplayCosts, placement: tuple[int, ...], *, is_split: bool) -> list[StageBytes]:
    """Bytes of every stage."""
    return [_bytes_of(costs, placement, stage, is_split) for stage in range(len(placement))]


def _bytes_of(costs: ReplayCosts, placement: tuple[int, ...], stage: int, is_split: bool) -> StageBytes:
    has_before = stage > 0 and placement[stage - 1] != placement[stage]
    has_after = stage + 1 < len(placement) and placement[stage + 1] != placement[stage]
    backward = Kind.I if is_split else Kind.B
    hold_forward = _largest(costs.send_hold_bytes, Kind.SEND_F, stage) if has_after else 0
    hold_backward = _largest(costs.send_hold_bytes, Kind.SEND_B, stage) if has_before else 0
    after_backward = _largest(costs.net_bytes, backward, stage)
    gradient = _largest(costs.net_bytes, Kind.RECV_B, stage) if has_after else 0
    weight_peak = after_backward + _largest(costs.peak_bytes, Kind.W, stage) if is_split else 0
    return StageBytes(
        receive_bytes=_largest(costs.net_bytes, Kind.RECV_F, stage) if has_before else 0,
        receive_gradient_bytes=gradient,
        after_forward=_largest(costs.net_bytes, Kind.F, stage) - hold_forward,
        after_backward=after_backward - hold_backward,
        after_weight=_largest(costs.net_bytes, Kind.W, stage),
        forward_bytes=max(_largest(costs.peak_bytes, Kind.F, stage), _largest(costs.net_bytes, Kind.F, stage)),
        backward_bytes=gradient + max(0, _largest(costs.peak_bytes, backward, stage), weight_peak),
    )


def _largest(tables: Mapping[Kind, BytesTable], kind: Kind, stage: int) -> int:
    """The entry of the largest class, which is the one of largest absolute value."""
    return max(tables[kind][stage], key=abs) if kind in tables else 0
