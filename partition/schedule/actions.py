"""One thing a rank does, and the lists of them that make a schedule.

rank 0   0F0  0SEND_F0  0F1  0SEND_F1  0RECV_B0  0B0  ...  0STEP
         |||
         ||+-- microbatch
         |+--- kind
         +---- stage: the actor's own, also in a message (0SEND_F0 pairs with 1RECV_F0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

NO_MICROBATCH = -1
"""The microbatch of an action that belongs to a whole stage, such as STEP."""


class Kind(StrEnum):
    """What an action does; the value is its text form."""

    F = "F"
    """forward"""
    B = "B"
    """full backward: input gradient and weight gradient"""
    I = "I"  # noqa: E741 - the letter of the text form
    """input gradient"""
    W = "W"
    """weight gradient"""
    R = "R"
    """forward again of what F has not kept, before B or I"""
    SEND_F = "SEND_F"
    RECV_F = "RECV_F"
    SEND_B = "SEND_B"
    RECV_B = "RECV_B"
    REDUCE_GRAD = "REDUCE_GRAD"
    UNSHARD = "UNSHARD"
    RESHARD = "RESHARD"
    STEP = "STEP"
    """the optimizer's update of one stage"""


COMPUTE = frozenset({Kind.F, Kind.B, Kind.I, Kind.W, Kind.R})
"""Kinds that do arithmetic on one microbatch."""
BACKWARD = frozenset({Kind.B, Kind.I})
"""Kinds that produce the gradient of a stage's input."""
SENDS = frozenset({Kind.SEND_F, Kind.SEND_B})
RECEIVES = frozenset({Kind.RECV_F, Kind.RECV_B})
MESSAGES = SENDS | RECEIVES
OF_STAGE = frozenset({Kind.REDUCE_GRAD, Kind.UNSHARD, Kind.RESHARD, Kind.STEP})
"""Kinds that concern a whole stage and carry no microbatch."""
# Plain names, asked for once an action: before Python 3.12 a member of an enumeration takes several times their time.
_F, _SEND_F, _SEND_B, _RECV_F, _RECV_B = Kind.F, Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B


class Action(NamedTuple):
    """One entry of a rank's row, printed as in torch.distributed.pipelining: ``str(Action(2, Kind.F, 0)) == "2F0"``."""

    stage: int
    kind: Kind
    microbatch: int = NO_MICROBATCH

    def __str__(self) -> str:
        number = "" if self.microbatch == NO_MICROBATCH else str(self.microbatch)
        return f"{self.stage}{self.kind.value}{number}"


class Result(NamedTuple):
    """What a computation hands to a neighbouring stage: an activation to the next, a gradient to the one before."""

    stage: int
    is_gradient: bool
    microbatch: int


def result_of(action: Action) -> Result | None:
    """What an action makes; None for W, R and for what computes nothing."""
    if action.kind is _F:
        return Result(action.stage, False, action.microbatch)
    return Result(action.stage, True, action.microbatch) if action.kind in BACKWARD else None


def result_needed(action: Action, num_stages: int) -> Result | None:
    """What an action takes from a neighbouring stage; None where it takes nothing from any."""
    if action.kind is _F and action.stage > 0:
        return Result(action.stage - 1, False, action.microbatch)
    if action.kind in BACKWARD and action.stage < num_stages - 1:
        return Result(action.stage + 1, True, action.microbatch)
    return None


def matching_receive(send: Action) -> Action:
    """The receive that pairs with a send: ``0SEND_F3`` with ``1RECV_F3``, ``1SEND_B3`` with ``0RECV_B3``."""
    if send.kind is _SEND_F:
        return Action(send.stage + 1, _RECV_F, send.microbatch)
    return Action(send.stage - 1, _RECV_B, send.microbatch)


def matching_send(receive: Action) -> Action:
    """The send that pairs with a receive: ``1RECV_F3`` with ``0SEND_F3``, ``0RECV_B3`` with ``1SEND_B3``."""
    if receive.kind is _RECV_F:
        return Action(receive.stage - 1, _SEND_F, receive.microbatch)
    return Action(receive.stage + 1, _SEND_B, receive.microbatch)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What each rank does, in order: one row of actions for each rank."""

    name: str
    num_stages: int
    num_microbatches: int
    placement: tuple[int, ...]
    """rank of each stage"""
    rows: tuple[tuple[Action, ...], ...]
    """actions of each rank, in the order in which it takes them"""
    is_forward_only: bool = False
    """prediction: no backward and no optimizer step"""

    @property
    def num_ranks(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def is_lowered(self) -> bool:
        """Whether messages or optimizer steps stand in the rows."""
        return any(action.kind in MESSAGES or action.kind is Kind.STEP for row in self.rows for action in row)

    @cached_property
    def recomputed_stages(self) -> frozenset[int]:
        """Stages that run forward again before their backwards."""
        return frozenset(action.stage for row in self.rows for action in row if action.kind is Kind.R)

    @cached_property
    def has_reductions(self) -> bool:
        """Whether gradients are added over replicas."""
        kind = Kind.REDUCE_GRAD
        return any(action.kind is kind for row in self.rows for action in row)

    def stages_of(self, rank: int) -> tuple[int, ...]:
        """Stages that a rank holds, in increasing order."""
        return self._stages_by_rank.get(rank, ())

    @cached_property
    def _stages_by_rank(self) -> Mapping[int, tuple[int, ...]]:
        stages: dict[int, list[int]] = {}
        for stage, rank in enumerate(self.placement):
            stages.setdefault(rank, []).append(stage)
        return {rank: tuple(own) for rank, own in stages.items()}

    def feeds(self, action: Action) -> Action | None:
        """The send that hands this action's result to a stage on another rank; None where there is none.

        F feeds the next stage, B and I the stage before; W and R feed nothing; stages of one rank need no message.
        """
        stage, kind, microbatch = action
        if kind is _F and stage + 1 < self.num_stages and self.placement[stage + 1] != self.placement[stage]:
            return Action(stage, _SEND_F, microbatch)
        if kind in BACKWARD and stage > 0 and self.placement[stage - 1] != self.placement[stage]:
            return Action(stage, _SEND_B, microbatch)
        return None

    def consumes(self, action: Action) -> Action | None:
        """The receive that brings what this action needs from another rank; None where it needs no message."""
        stage, kind, microbatch = action
        if kind is _F and stage > 0 and self.placement[stage - 1] != self.placement[stage]:
            return Action(stage, _RECV_F, microbatch)
        last = self.num_stages - 1
        if kind in BACKWARD and stage < last and self.placement[stage + 1] != self.placement[stage]:
            return Action(stage, _RECV_B, microbatch)
        return None
