"""When a step ends and how long each rank works: the figures of `replay`, without its timelines.

The rules of clocks and links stand here a second time, on plain numbers in lists, and that for speed alone: the planner
replays every candidate, and this takes a fifth of the time of `partition.schedule.replay`. The one cannot be had of the
other for less: noting start and end of every action here, from which the timelines would follow, takes a quarter more,
and a clock that is told by calls what to do takes twice as long. So `replay.py` is the statement of the rules, for
people and for pictures, and this is held against it to the last bit, over random schedules and costs, by
`tests/schedule/test_step_time.py`; a change of a rule is made in both. What replicas wait for one another is one code
for both (`replicas.py`).

A message is a number: stage * M + microbatch forward, and as much more as there are such numbers backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from partition.errors import ScheduleError
from partition.schedule.actions import Kind, Schedule
from partition.schedule.replay_costs import ReplayCosts, SecondsTable
from partition.schedule.replicas import run_together


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a replica comes to."""

    makespan_s: float
    """end of its last action"""
    busy_s: tuple[float, ...]
    """of each rank: seconds of its computations and steps"""


def step_times(parts: Sequence[tuple[Schedule, ReplayCosts]], *, has_step_barrier: bool = False) -> list[StepTime]:
    """The figures of all replicas of a step, as `replay_replicas` finds them.

    Raises ScheduleError for rows that stand still.
    """
    replicas = [_Clocks(schedule, costs) for schedule, costs in parts]
    run_together(replicas, has_step_barrier=has_step_barrier)
    return [StepTime(makespan_s=max(of.clock_s, default=0.0), busy_s=tuple(of.busy_s)) for of in replicas]


class _Clocks:
    """How far each rank and each link of one replica is."""

    def __init__(self, schedule: Schedule, costs: ReplayCosts) -> None:
        self.schedule, self.costs = schedule, costs
        stages, count = schedule.num_stages, schedule.num_microbatches
        self.clock_s, self.busy_s = [0.0] * schedule.num_ranks, [0.0] * schedule.num_ranks
        self.reduce_posted_s: dict[int, float] = {}
        self.reduced_s: dict[int, float] = {}
        self._place = [0] * schedule.num_ranks
        messages = 2 * stages * count
        self._sent_s: list[float | None] = [None] * messages
        self._received_s: list[float | None] = [None] * messages
        self._completion_s: list[float | None] = [None] * messages
        self._latest = [-1] * (2 * stages)
        """Of every stage and direction the message sent last."""
        self._waiting: dict[int, list[int]] = {}
        self._ready: list[int] = []
        self._transfers_s: SecondsTable = (*costs.send_forward_s, *costs.send_backward_s)
        """Of every stage and direction."""
        self._find_links()

    def _find_links(self) -> None:
        """The link of each stage and direction, those between the same ranks being one, and what needs a message."""
        placement, stages = self.schedule.placement, self.schedule.num_stages
        numbers: dict[tuple[int, int], int] = {}
        self._link = [-1] * (2 * stages)
        for stage, source in enumerate(placement):
            for channel, neighbour in ((stage, stage + 1), (stages + stage, stage - 1)):
                if 0 <= neighbour < stages:
                    ends = source, placement[neighbour]
                    self._link[channel] = numbers.setdefault(ends, len(numbers))
        self._queues: list[list[int]] = [[] for _ in numbers]
        self._moved, self._free_s = [0] * len(numbers), [0.0] * len(numbers)
        self._is_fed = [stage > 0 and placement[stage - 1] != rank for stage, rank in enumerate(placement)]
        self._is_fed_back = [stage < stages - 1 and placement[stage + 1] != rank
                             for stage, rank in enumerate(placement)]  # fmt: skip

    def once_s(self, kind: Kind, stage: int) -> float:
        """Seconds of what a stage does once."""
        table = self.costs.seconds.get(kind)
        return 0.0 if table is None else table[stage][0]

    def run(self, *, is_stopped_by_steps: bool = False) -> None:
        """Advance every rank to the end of its row, or up to its first step."""
        self._ready.extend(range(self.schedule.num_ranks))
        while self._ready:
            self._advance(self._ready.pop(), is_stopped_by_steps)
        for rank, row in enumerate(self.schedule.rows):
            place = self._place[rank]
            if place < len(row) and not (is_stopped_by_steps and row[place].kind is Kind.STEP):
                raise ScheduleError(f"schedule {self.schedule.name}: rank {rank} stands still before {row[place]}; "
                                    "`validate` names the cause")  # fmt: skip

    # One long loop on local names: it runs once for every action of every candidate, and calls were half of its time.
    # Links are looked at only once both sides of a message have posted: before, nothing on them has changed.
    def _advance(self, rank: int, is_stopped_by_steps: bool) -> None:
        """Take actions of one rank until it must wait."""
        row, place = self.schedule.rows[rank], self._place[rank]
        stages, count = self.schedule.num_stages, self.schedule.num_microbatches
        back = stages * count
        seconds, size_class = self.costs.seconds, self.costs.size_class
        completion_s, latest = self._completion_s, self._latest
        sent_s, received_s = self._sent_s, self._received_s
        clock_s, busy_s = self.clock_s[rank], self.busy_s[rank]
        end = len(row)
        while place < end:
            stage, kind, microbatch = row[place]
            if kind in _COMPUTATIONS:
                needed = -1
                if kind is _F:
                    if self._is_fed[stage]:
                        needed = (stage - 1) * count + microbatch
                elif (kind is _B or kind is _I) and self._is_fed_back[stage]:
                    needed = back + (stage + 1) * count + microbatch
                if needed >= 0:
                    arrival_s = completion_s[needed]
                    if arrival_s is None:
                        self._waiting.setdefault(needed, []).append(rank)
                        break
                    if arrival_s > clock_s:
                        clock_s = arrival_s
                table = seconds.get(kind)
                if table is not None:
                    own_s = table[stage][size_class[microbatch]]
                    clock_s += own_s
                    busy_s += own_s
            elif kind is _SEND_F or kind is _SEND_B:
                channel, base = (stage, 0) if kind is _SEND_F else (stages + stage, back)
                before = latest[channel]
                if before >= 0:
                    done_s = completion_s[before]
                    if done_s is None:
                        self._waiting.setdefault(before, []).append(rank)
                        break
                    if done_s > clock_s:
                        clock_s = done_s
                table = seconds.get(kind)
                if table is not None:
                    clock_s += table[stage][size_class[microbatch]]
                message = base + stage * count + microbatch
                latest[channel] = message
                sent_s[message] = clock_s
                link = self._link[channel]
                self._queues[link].append(message)
                if received_s[message] is not None:
                    self._move(link)
            elif kind is _RECV_F or kind is _RECV_B:
                table = seconds.get(kind)
                if table is not None:
                    clock_s += table[stage][size_class[microbatch]]
                if kind is _RECV_F:
                    source, message = stage - 1, (stage - 1) * count + microbatch
                else:
                    source, message = stages + stage + 1, back + (stage + 1) * count + microbatch
                received_s[message] = clock_s
                if sent_s[message] is not None:
                    self._move(self._link[source])
            elif kind is _STEP:
                waits = self._before_step(rank, clock_s)
                if waits is None:
                    break
                clock_s = max(waits, self.reduced_s.get(stage, 0.0))
                if is_stopped_by_steps:
                    break
                own_s = self.once_s(kind, stage)
                clock_s += own_s
                busy_s += own_s
            elif kind is _REDUCE_GRAD:
                self.reduce_posted_s[stage] = clock_s
            else:
                clock_s += self.once_s(kind, stage)
            place += 1
        self._place[rank], self.clock_s[rank], self.busy_s[rank] = place, clock_s, busy_s

    def _before_step(self, rank: int, clock_s: float) -> float | None:
        """When all sends of a rank are through; None where one is not, which is noted."""
        stages = self.schedule.num_stages
        for stage in self.schedule.stages_of(rank):
            for message in (self._latest[stage], self._latest[stages + stage]):
                if message >= 0:
                    done_s = self._completion_s[message]
                    if done_s is None:
                        self._waiting.setdefault(message, []).append(rank)
                        return None
                    clock_s = max(clock_s, done_s)
        return clock_s

    def _move(self, link: int) -> None:
        """Transfer what both sides have posted on a link, in order, and wake who waits for it."""
        queue, moved, free_s = self._queues[link], self._moved[link], self._free_s[link]
        count, transfers_s, size_class = self.schedule.num_microbatches, self._transfers_s, self.costs.size_class
        while moved < len(queue):
            message = queue[moved]
            received_s, sent_s = self._received_s[message], self._sent_s[message]
            if received_s is None or sent_s is None:
                break
            start_s = sent_s if sent_s >= received_s else received_s
            if free_s > start_s:
                start_s = free_s
            channel, microbatch = divmod(message, count)
            free_s = self._completion_s[message] = start_s + transfers_s[channel][size_class[microbatch]]
            moved += 1
            if message in self._waiting:
                self._ready.extend(self._waiting.pop(message))
        self._moved[link], self._free_s[link] = moved, free_s


_COMPUTATIONS = frozenset({Kind.F, Kind.B, Kind.I, Kind.W, Kind.R})
# Plain names for the loop: before Python 3.12 a member of an enumeration is looked up in several times their time.
_F, _B, _I, _STEP, _REDUCE_GRAD = Kind.F, Kind.B, Kind.I, Kind.STEP, Kind.REDUCE_GRAD
_SEND_F, _SEND_B, _RECV_F, _RECV_B = Kind.SEND_F, Kind.SEND_B, Kind.RECV_F, Kind.RECV_B
