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
from partition.schedule.actions import BACKWARD, COMPUTE, RECEIVES, Action, Kind, Schedule
from partition.schedule.drawing import draw_around

_Result = tuple[int, bool, int]
"""Stage, whether it is a gradient, and microbatch."""
# Plain names, asked for once an action: before Python 3.12 a member of an enumeration takes several times their time.
_F, _SEND_F, _SEND_B, _RECV_F, _RECV_B = Kind.F, Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B


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
        self.done: set[_Result] = set()
        self.waiting: dict[_Result, list[int]] = {}

    def run(self) -> list[list[Action]]:
        """Tick until every row has ended."""
        for rank in range(self.schedule.num_ranks):
            self._pass_markers(rank)
        ranks = list(range(self.schedule.num_ranks))
        while ranks:
            ran = self._take(ranks)
            ranks = sorted(self._hand_over(ran) + [rank for rank, _ in ran])
        late = [rank for rank, row in enumerate(self.schedule.rows) if self.position[rank] < len(row)]
        if late:
            self._refuse(late[0])
        return self.rows

    # Two loops on plain tuples: they run once for every action of every layout.
    def _take(self, ranks: list[int]) -> list[tuple[int, Action]]:
        """The next action of each rank, taken; not where there is none or it waits, which is noted."""
        last, taken = self.schedule.num_stages - 1, []
        for rank in ranks:
            row, place = self.schedule.rows[rank], self.position[rank]
            if place == len(row):
                continue
            stage, kind, microbatch = action = row[place]
            if kind is _F:
                needed = (stage - 1, False, microbatch) if stage else None
            else:
                needed = (stage + 1, True, microbatch) if stage < last and kind in BACKWARD else None
            if needed is not None and needed not in self.done:
                self.waiting.setdefault(needed, []).append(rank)
                continue
            self.rows[rank].append(action)
            self.position[rank] = place + 1
            taken.append((rank, action))
        return taken

    def _hand_over(self, ran: list[tuple[int, Action]]) -> list[int]:
        """Hand results over, in the order of ranks; the ranks that waited for them."""
        placement, last, woken = self.schedule.placement, self.schedule.num_stages - 1, list[int]()
        for rank, (stage, kind, microbatch) in ran:
            is_forward = kind is _F
            if is_forward or kind in BACKWARD:
                other = stage + 1 if is_forward else stage - 1
                if 0 <= other <= last and placement[other] != rank:
                    send, receive = (_SEND_F, _RECV_F) if is_forward else (_SEND_B, _RECV_B)
                    self.rows[rank].append(Action(stage, send, microbatch))
                    self.rows[placement[other]].append(Action(other, receive, microbatch))
                made = stage, not is_forward, microbatch
                self.done.add(made)
                woken += self.waiting.pop(made, ())
            self._pass_markers(rank)
        return woken

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
