"""Whether rows of actions run to their ends, by taking every action as soon as it may be taken.

Three semantics of messages, each of which some library has (a receive is always posted without waiting):

    buffered     a send never waits
    rendezvous   a send waits until the matching receive was posted
    fifo         a send never waits; the receives from one rank take its messages in the order of sending, whatever
                 their names, so a receive that comes too early gets another's message

and one stricter than any of them, for rows that stand in one global order of messages:

    blocking     a send waits for its receive and a receive for its message

In what order ranks are advanced does not matter: taking one action never makes another impossible, so a
standstill that is found is found by every order.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

from partition.schedule.actions import (
    BACKWARD,
    MESSAGES,
    RECEIVES,
    SENDS,
    Action,
    Kind,
    Schedule,
    matching_receive,
    matching_send,
)


class Semantics(Enum):
    """How messages are sent; the value is how an error describes it."""

    UNSENT = "before messages are added"
    BUFFERED = "sends are buffered"
    RENDEZVOUS = "a send waits for its receive to be posted"
    FIFO = "messages between two ranks arrive in the order of sending"
    BLOCKING = "a send and its receive wait for one another"


class Deadlock(NamedTuple):
    """Where a rank stops for ever, and what it waits for."""

    rank: int
    position: int
    reason: str


def find_deadlock(schedule: Schedule, semantics: Semantics) -> Deadlock | None:
    """Run the rows untimed; None if all end, else one place at the root of the standstill."""
    if semantics is Semantics.FIFO:
        crossed = find_crossed(schedule)
        if crossed is not None:
            return crossed
    run = _Run(schedule, semantics)
    run.to_the_end()
    stuck = [rank for rank, row in enumerate(schedule.rows) if run.position[rank] < len(row)]
    return run.root(stuck[0]) if stuck else None


def find_crossed(schedule: Schedule) -> Deadlock | None:
    """The first receive that is not posted in the order in which its sender sends."""
    sent: dict[tuple[int, int], deque[Action]] = {}
    placement = schedule.placement
    for rank, row in enumerate(schedule.rows):
        for action in row:
            if action.kind in SENDS:
                receive = matching_receive(action)
                sent.setdefault((rank, placement[receive.stage]), deque()).append(receive)
    for rank, row in enumerate(schedule.rows):
        for position, action in enumerate(row):
            if action.kind in RECEIVES:
                first = sent[placement[matching_send(action).stage], rank].popleft()
                if first != action:
                    return Deadlock(rank, position, f"the message that comes first is that of {matching_send(first)}")
    return None


class _Run:
    """How far each rank is, what was done, and who waits for what. A message counts as done when it is posted."""

    def __init__(self, schedule: Schedule, semantics: Semantics) -> None:
        self.schedule = schedule
        self.has_messages = semantics is not Semantics.UNSENT
        self.sends_wait = semantics in (Semantics.RENDEZVOUS, Semantics.BLOCKING)
        self.receives_wait = semantics is Semantics.BLOCKING
        self.position = [0] * schedule.num_ranks
        self.done: set[Action] = set()
        self.waiters: dict[Action, list[int]] = {}
        self.ready = list(range(schedule.num_ranks))

    def to_the_end(self) -> None:
        """Advance every rank until none can move."""
        while self.ready:
            rank = self.ready.pop()
            row = self.schedule.rows[rank]
            while self.position[rank] < len(row) and self._take(rank, row[self.position[rank]]):
                self.position[rank] += 1

    def _take(self, rank: int, action: Action) -> bool:
        """Do an action, or note what the rank waits for."""
        is_message = action.kind in MESSAGES
        if is_message:
            self._mark(action)
        for needed in self._awaited(action):
            if needed not in self.done:
                self.waiters.setdefault(needed, []).append(rank)
                return False
        if not is_message:
            self._mark(action)
        return True

    def _mark(self, action: Action) -> None:
        """Note that an action is done and wake who waits for it; I stands for B where a gradient is awaited."""
        self.done.add(action)
        if action in self.waiters:
            self.ready.extend(self.waiters.pop(action))
        if action.kind is Kind.I:
            self._mark(Action(action.stage, Kind.B, action.microbatch))

    def _missing(self, action: Action) -> Action | None:
        """One action that must be done first and is not; None if the action may be taken."""
        return next((needed for needed in self._awaited(action) if needed not in self.done), None)

    def _awaited(self, action: Action) -> list[Action]:
        if action.kind in SENDS:
            return [matching_receive(action)] if self.sends_wait else []
        if action.kind in RECEIVES:
            return [matching_send(action)] if self.receives_wait else []
        return self._needs(action)

    def _needs(self, action: Action) -> list[Action]:
        stage, kind, microbatch = action
        if kind is Kind.F:
            return [self._cause(action, Action(stage - 1, Kind.F, microbatch))] if stage > 0 else []
        if kind in BACKWARD:
            own = [Action(stage, Kind.F, microbatch)]
            is_last = stage == self.schedule.num_stages - 1
            return own if is_last else [*own, self._cause(action, Action(stage + 1, Kind.B, microbatch))]
        own_cause = {Kind.W: Kind.I, Kind.R: Kind.F}
        return [Action(stage, own_cause[kind], microbatch)] if kind in own_cause else []

    def _cause(self, action: Action, computation: Action) -> Action:
        """What a computation takes from a neighbouring stage: the message if there is one, else the computation."""
        receive = self.schedule.consumes(action) if self.has_messages else None
        return computation if receive is None else matching_send(receive)

    def root(self, rank: int) -> Deadlock:
        """Follow what each rank waits for until one waits for itself or a circle closes."""
        seen: list[int] = []
        while rank not in seen:
            seen.append(rank)
            needed = self._missing(self._next(rank))
            assert needed is not None
            rank = self.schedule.placement[needed.stage]
        circle = seen[seen.index(rank) :]
        waits = [f"{self._next(member)} waits for {self._missing(self._next(member))}" for member in circle]
        shown = "; ".join(waits[:4]) + ("; ..." if len(waits) > 4 else "")
        ends = "comes later in the same row" if len(circle) == 1 else "ranks wait for one another"
        return Deadlock(rank, self.position[rank], f"{shown}: {ends}")

    def _next(self, rank: int) -> Action:
        return self.schedule.rows[rank][self.position[rank]]
