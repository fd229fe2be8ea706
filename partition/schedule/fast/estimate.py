"""Time and memory of a schedule on integer arrays: the figures of `lower` and `replay`, for all ranks at once.

The floats are those of `partition.schedule.replay`, bit for bit: the same maxima and sums, taken for all ranks of
a tick together instead of rank by rank. Eight million computations take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from partition.errors import ScheduleError
from partition.schedule.actions import Kind, Schedule
from partition.schedule.fast.coded import (
    CODED_KINDS,
    NUM_COMPUTATIONS,
    Coded,
    Flags,
    Floats,
    Indices,
    encode,
    find_needs,
    find_routes,
    look_up,
    placement_of,
)
from partition.schedule.fast.memory import RowWriter, peak_bytes_of
from partition.schedule.replay_costs import ReplayCosts


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a replay comes to, rank by rank; with several schedules side by side, one after the other."""

    end_s: Floats
    """end of each rank's last action"""
    busy_s: Floats
    first_s: Floats
    """start of each rank's first computation"""
    last_s: Floats
    """end of each rank's last computation or step"""
    peak_bytes: tuple[int, ...]
    num_ranks: int
    """of one schedule"""

    @property
    def makespan_s(self) -> float:
        """End of the last action of all."""
        return float(self.end_s.max())

    @property
    def makespans_s(self) -> Floats:
        """End of the last action of each schedule."""
        makespans: Floats = self.end_s.reshape(-1, self.num_ranks).max(axis=1)
        return makespans

    @property
    def bubble_s(self) -> Floats:
        """Idle seconds of each rank within its own span."""
        return self.last_s - self.first_s - self.busy_s


def estimate(
    schedule: Schedule | Coded, costs: ReplayCosts, *, has_step_barrier: bool = False, receives_ahead: int = 0
) -> Figures:
    """Replay the computations of a schedule as `lower` would complete it.

    Raises ScheduleError where computations wait for one another.
    """
    coded = encode(schedule) if isinstance(schedule, Schedule) else schedule
    figures, stuck = estimate_lanes(coded, costs, has_step_barrier, receives_ahead)
    if stuck.any():
        raise ScheduleError(f"rank {int(np.flatnonzero(stuck)[0])} stands still; `validate` names the cause")
    return figures


def estimate_lanes(
    coded: Coded, costs: ReplayCosts, has_step_barrier: bool, receives_ahead: int
) -> tuple[Figures, Flags]:
    """Figures of all ranks, and which of them stand still."""
    lanes = _Lanes(coded, costs, receives_ahead)
    lanes.run()
    return lanes.finish(has_step_barrier), lanes.stuck


class _Lanes:
    """The state of all ranks, one array each."""

    def __init__(self, coded: Coded, costs: ReplayCosts, receives_ahead: int) -> None:
        self.coded, self.costs = coded, costs
        ranks, width = coded.rows.shape
        self.numbers = coded.rows.reshape(-1)
        self.needs, self.routes = find_needs(coded), find_routes(coded)
        self.size_class = np.asarray(costs.size_class, dtype=np.intp)
        self.classes = max(costs.size_class) + 1
        self.seconds = seconds_table(coded, costs)
        self.occupancy = _occupancy_table(coded, costs)
        self.place = np.arange(ranks, dtype=np.intp) * width
        self.done = self.needs.done_at_start
        self.far, self.own = np.zeros(ranks, dtype=np.intp), np.zeros(ranks, dtype=np.intp)
        self._look_ahead(np.arange(ranks))
        self.arrival = np.zeros(self.needs.num_results)
        self.clock, self.busy, self.last = np.zeros(ranks), np.zeros(ranks), np.zeros(ranks)
        self.first = np.full(ranks, -1.0)
        self.starting = True
        self.link_free = np.zeros(self.routes.num_links)
        self.channel_done = np.zeros(2 * coded.total_stages)
        self.earlier = [np.zeros(ranks) for _ in range(receives_ahead)]
        self.writer = RowWriter(coded, self.routes, receives_ahead)

    def run(self) -> None:
        """Tick until no rank can go on."""
        while True:
            running = np.flatnonzero(self.done.take(self.far) & self.done.take(self.own))
            if not len(running):
                return
            self._tick(running)

    def _look_ahead(self, ranks: Indices) -> None:
        """Find what the next computations of these ranks need."""
        numbers = self.numbers.take(self.place.take(ranks)).astype(np.intp)
        kind_stage = numbers // self.coded.num_microbatches
        self.far[ranks] = look_up(numbers, kind_stage, self.needs.far_offset, self.needs.far_constant)
        self.own[ranks] = look_up(numbers, kind_stage, self.needs.own_offset, self.needs.own_constant)

    @property
    def stuck(self) -> Flags:
        """Whether each rank stands before a computation that never runs."""
        stuck: Flags = self.numbers.take(self.place) >= 0
        return stuck

    def _tick(self, running: Indices) -> None:
        places = self.place.take(running)
        numbers = self.numbers.take(places).astype(np.intp)
        kind_stage = numbers // self.coded.num_microbatches
        size = self.size_class.take(numbers - kind_stage * self.coded.num_microbatches)
        seconds = self.seconds.take(kind_stage * self.classes + size)
        self._remember(running)
        start = np.maximum(self.clock.take(running), self.arrival.take(self.far.take(running)))
        end = start + seconds
        if self.starting:
            self._start(running, start)
        self.clock[running] = self.last[running] = end
        self.busy[running] += seconds
        self.place[running] = places + 1
        self._look_ahead(running)
        made = look_up(numbers, kind_stage, self.needs.makes_offset, self.needs.makes_constant)
        self.done[made] = True
        sending = np.flatnonzero(self.routes.channel.take(kind_stage) >= 0)
        self.writer.compute(running, numbers)
        if len(sending):
            self._send(running[sending], kind_stage[sending], size[sending], made[sending])
            self.writer.send(running[sending], numbers[sending], kind_stage[sending])

    def _start(self, running: Indices, start: Floats) -> None:
        """Note the starts of first computations, until every rank has had one."""
        self.first[running] = np.where(self.first[running] < 0, start, self.first[running])
        self.starting = bool(self.first.min() < 0)

    def _remember(self, running: Indices) -> None:
        """Keep the clocks before the last computations, at which receives that are posted ahead are posted."""
        for ahead in range(len(self.earlier) - 1, 0, -1):
            self.earlier[ahead][running] = self.earlier[ahead - 1][running]
        if self.earlier:
            self.earlier[0][running] = self.clock[running]

    def _send(self, source: Indices, kind_stage: Indices, size: Indices, made: Indices) -> None:
        """Hand results over. A rank posts the receives of lower ranks before its own send, of higher ones after."""
        channel, link = self.routes.channel.take(kind_stage), self.routes.link.take(kind_stage)
        peer = self.routes.peer.take(kind_stage)
        before = self.clock.take(peer)
        posted = np.maximum(self.clock.take(source), self.channel_done.take(channel))
        self.clock[source] = posted
        received = (
            np.where(peer < source, self.clock.take(peer), before) if not self.earlier else self.earlier[-1][peer]
        )
        start = np.maximum(np.maximum(posted, received), self.link_free.take(link))
        completion = start + self.occupancy.take(channel * self.classes + size)
        self.link_free[link] = self.channel_done[channel] = self.arrival[made] = completion

    def finish(self, has_step_barrier: bool) -> Figures:
        """Take the optimizer steps and add the bytes up."""
        if not self.coded.is_forward_only:
            self._step(has_step_barrier)
        return Figures(
            end_s=self.clock,
            busy_s=self.busy,
            first_s=np.maximum(self.first, 0.0),
            last_s=self.last,
            peak_bytes=peak_bytes_of(self.coded, self.writer.rows(), self.costs),
            num_ranks=self.coded.num_ranks,
        )

    def _step(self, has_step_barrier: bool) -> None:
        placement, stages = placement_of(self.coded), self.coded.total_stages
        np.maximum.at(self.clock, np.tile(placement, 2), self.channel_done)
        if has_step_barrier:
            per_schedule = self.clock.reshape(-1, self.coded.num_ranks)
            self.clock = np.repeat(per_schedule.max(axis=1), self.coded.num_ranks)
        table = self.costs.seconds.get(Kind.STEP)
        step = np.zeros(self.coded.num_stages) if table is None else np.asarray([row[0] for row in table])
        for stage in range(stages):
            self.clock[placement[stage]] += step[stage % self.coded.num_stages]
            self.busy[placement[stage]] += step[stage % self.coded.num_stages]
        self.last = self.clock.copy()


def seconds_table(coded: Coded, costs: ReplayCosts) -> Floats:
    """Seconds of each computation, [kind * stages + stage, class]."""
    classes = max(costs.size_class) + 1
    table = np.zeros((NUM_COMPUTATIONS, coded.num_copies, coded.num_stages, classes))
    for code, kind in enumerate(CODED_KINDS[:NUM_COMPUTATIONS]):
        if kind in costs.seconds:
            table[code] = np.asarray(costs.seconds[kind])[:, :classes]
    return table.reshape(-1, classes)


def _occupancy_table(coded: Coded, costs: ReplayCosts) -> Floats:
    """Seconds of each message on its link, [direction * stages + stage, class]."""
    classes = max(costs.size_class) + 1
    table = np.zeros((2, coded.num_copies, coded.num_stages, classes))
    for direction, seconds in enumerate((costs.send_forward_s, costs.send_backward_s)):
        table[direction] = np.asarray(seconds)[:, :classes]
    return table.reshape(-1, classes)
