"""From computation to messages: where each rank sends, receives and steps.

Every rank takes its computations in row order, one a tick, as soon as what they need was finished in an
earlier tick. After each tick the results that another rank needs are handed over, in rank order: the sender's
row gets the send and, at the same moment, the receiver's row gets the receive.

    tick         0       1                2
    rank 0       0F0     0F1              ..
    messages       0SEND_F0  0SEND_F1
    rank 1       ..      1F0              1F1
    messages       1RECV_F0  1RECV_F1

So all messages stand in one total order and every rank lists its own in that order: no cycle of waiting can
arise, even if a send blocks until its receive is posted.
"""

from __future__ import annotations

from dataclasses import replace

from partition.errors import ScheduleError
from partition.schedule.actions import (
    COMPUTE,
    RECEIVES,
    Action,
    Kind,
    Result,
    Schedule,
    matching_receive,
    result_needed,
    result_of,
)
from partition.schedule.drawing import draw_around


def lower(schedule: Schedule, *, receives_ahead: int = 0) -> Schedule:
    """Add sends, receives and one optimizer step for each stage.

    Stages of one rank exchange without messages. With `receives_ahead` each receive is posted that many
    computations earlier, so that messages move while the receiver computes, and buffers are held longer. Raises
    ScheduleError for rows that are lowered already and for rows whose computations wait for one another.
    """
    if schedule.is_lowered:
        raise ScheduleError(f"schedule {schedule.name} is lowered already: its rows hold messages or steps")
    rows = [_post_ahead(row, receives_ahead) for row in _Lowering(schedule).run()]
    return _with_steps(replace(schedule, rows=tuple(map(tuple, rows))))


def complete(schedule: Schedule) -> Schedule:
    """The schedule as it runs: lowered if its rows hold no messages, and with the steps that the text form leaves out.

    Raises ScheduleError as `lower` does.
    """
    if not schedule.is_lowered:
        return lower(schedule)
    has_steps = any(action.kind is Kind.STEP for row in schedule.rows for action in row)
    return schedule if has_steps else _with_steps(schedule)


def _with_steps(schedule: Schedule) -> Schedule:
    """One optimizer step for each stage, at the end of its row; none in prediction."""
    if schedule.is_forward_only:
        return schedule
    steps = [[Action(stage, Kind.STEP) for stage in schedule.stages_of(rank)] for rank in range(schedule.num_ranks)]
    return replace(schedule, rows=tuple((*row, *own) for row, own in zip(schedule.rows, steps, strict=True)))


def _post_ahead(row: list[Action], computations: int) -> list[Action]:
    """Move every receive before the computation that many places earlier; receives keep their order.

    1F0 1RECV_F1 1SEND_F0 1F1 1RECV_F2   becomes   1RECV_F1 1F0 1SEND_F0 1RECV_F2 1F1
    """
    if not computations:
        return row
    keys, before = [], 0
    for action in row:
        before += action.kind in COMPUTE
        is_receive = action.kind in RECEIVES
        keys.append(max(2 * (before - computations), 0) if is_receive else 2 * before - 1)
    return [row[place] for place in sorted(range(len(row)), key=keys.__getitem__)]


class _Lowering:
    """The state of one run: how far each rank is, what was finished, and who waits for what."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.position = [0] * schedule.num_ranks
        self.rows: list[list[Action]] = [[] for _ in schedule.rows]
        self.done: set[Result] = set()
        self.waiting: dict[Result, list[int]] = {}

    def run(self) -> list[list[Action]]:
        """Tick until every row has ended."""
        for rank in range(self.schedule.num_ranks):
            self._pass_markers(rank)
        ranks = list(range(self.schedule.num_ranks))
        while ranks:
            ranks = self._tick(ranks)
        late = [rank for rank, row in enumerate(self.schedule.rows) if self.position[rank] < len(row)]
        if late:
            self._refuse(late[0])
        return self.rows

    def _tick(self, ranks: list[int]) -> list[int]:
        """Run what is ready on these ranks, hand the results over in rank order; the ranks to look at next."""
        ran = [(rank, action) for rank in ranks if (action := self._take(rank)) is not None]
        following = [rank for rank, _ in ran]
        for _, action in ran:
            following += self._finish(action)
        return sorted(following)

    def _take(self, rank: int) -> Action | None:
        """The next action of a rank, taken; None where there is none or it waits, which is noted."""
        row = self.schedule.rows[rank]
        if self.position[rank] == len(row):
            return None
        action = row[self.position[rank]]
        needed = result_needed(action, self.schedule.num_stages)
        if needed is not None and needed not in self.done:
            self.waiting.setdefault(needed, []).append(rank)
            return None
        self.rows[rank].append(action)
        self.position[rank] += 1
        return action

    def _finish(self, action: Action) -> list[int]:
        """Hand the result of an action over; the ranks that waited for it."""
        placement = self.schedule.placement
        send = self.schedule.feeds(action)
        if send is not None:
            receive = matching_receive(send)
            self.rows[placement[send.stage]].append(send)
            self.rows[placement[receive.stage]].append(receive)
        self._pass_markers(placement[action.stage])
        made = result_of(action)
        if made is None:
            return []
        self.done.add(made)
        return self.waiting.pop(made, [])

    def _pass_markers(self, rank: int) -> None:
        """Take over actions that compute nothing on a microbatch; they cost no tick."""
        row = self.schedule.rows[rank]
        while self.position[rank] < len(row) and row[self.position[rank]].kind not in COMPUTE:
            self.rows[rank].append(row[self.position[rank]])
            self.position[rank] += 1

    def _refuse(self, rank: int) -> None:
        position = self.position[rank]
        raise ScheduleError(
            f"schedule {self.schedule.name}: rank {rank}, position {position}, "
            f"{self.schedule.rows[rank][position]} waits for an action that never runs\n"
            + draw_around(self.schedule, rank, position)
        )
