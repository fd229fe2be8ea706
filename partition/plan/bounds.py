"""What the step of a candidate cannot be below, before its schedule is written out, let alone replayed.

With F, B, I, W the seconds of a stage k on one microbatch of the smallest size, f and b those of its messages forward
and backward, P(k) = I(k) where the schedule splits the backward and else B(k), M microbatches:

    in(k)   = sum over j < k of F(j) + f(j)                      nothing reaches stage k before
    out(k)  = sum over j < k of P(j) + b(j + 1)                  from the last P of stage k to that of stage 0
    any     in(k) + M (F + I + W)(k) + sum over replicas + STEP of the rank                            for every rank
            in(k) + M sum of (F + P) of its stages + out(k) + ... of stage 0      for every rank, k its first stage
            in(S) + out(S) + (M - 1) f(k) + ... of stage 0                                             for every link
    1f1b    in(S) + out(S) + (M - 1) P(k) + (M - before(k)) F(k)           `before` forwards precede the first backward
    gpipe   in(S) + (M - 1) max F + out(S) + (M - 1) max P
    rows    what stands in a row before its first backward, up to its last P, and after it              `row_bound.py`

Each of them follows from the order of a rank's row and from what its actions wait for; a replay can only add to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import accumulate, pairwise
from typing import NamedTuple

from partition.costs import Cluster, CostSource, Device
from partition.plan.array_split import floor_of
from partition.plan.layer_sums import BOTH, PATH, LayerSums
from partition.plan.row_bound import part_seconds, row_parts
from partition.plan.split import Segment
from partition.schedule import Kind
from partition.schedule.generators import GENERATORS
from partition.schedule.rows import Shape as ScheduleShape
from partition.schedule.rows import interleaved_forwards

ROUNDING = 1e-9
"""Relative: the bounds add in another order than a replay does."""


class _StageFigures(NamedTuple):
    """Seconds of one stage: of every microbatch, and once."""

    rank: int
    forward_s: float
    path_s: float
    """P of the formulas."""
    work_s: float
    """Forward and the whole backward."""
    send_s: float
    """f of the formulas; 0 where the next stage is on the same rank."""
    send_back_s: float
    sum_s: float
    """Of gradients over replicas."""
    step_s: float


@dataclass(frozen=True, kw_only=True)
class StepBound:
    """The bound of one layout on given segments."""

    schedule: str
    placement: tuple[int, ...]
    num_microbatches: int
    stages: tuple[_StageFigures, ...]

    @staticmethod
    def of(
        schedule: str,
        placement: Sequence[int],
        sizes: Sequence[int],
        segments: Sequence[Segment],
        cluster: Cluster,
        sums: LayerSums,
        num_replicas: int,
    ) -> StepBound:
        """The figures of the first replica, whose segments these are."""
        rows, num_ranks = min(sizes), max(placement) + 1
        splits_backward = GENERATORS[schedule].splits_backward
        actions = ("forward", *(("input_grad", "weight_grad") if splits_backward else ("backward",) * 2))
        running = {
            index: [sums.lists(rows, cluster.devices[index], (action,)) for action in actions]
            for index in {segment.device for segment in segments}
        }
        found = []
        for index, segment in enumerate(segments):
            device, first, last = cluster.devices[segment.device], segment.first_layer, segment.last_layer
            forward_s, path_s, weight_s = [ends[last + 1] - starts[first] for ends, starts in running[segment.device]]
            send_s, send_back_s = [
                _message_s(segments, placement, index, index + side, cluster, sums.sent_bytes(rows, cut))
                for side, cut in ((1, last + 1), (-1, first))
            ]
            cost = sums.model.stage(first, last)
            column = [segment.device + replica * num_ranks for replica in range(num_replicas)]
            found.append(
                _StageFigures(
                    rank=placement[index],
                    forward_s=forward_s,
                    path_s=path_s,
                    work_s=forward_s + path_s + (weight_s if splits_backward else 0.0),
                    send_s=send_s,
                    send_back_s=send_back_s,
                    sum_s=cluster.sum_s(column, cost.tensor_bytes) if num_replicas > 1 else 0.0,
                    step_s=sums.once(("step", cost, device.rates), partial(cost.step.seconds, device)),
                )
            )
        return StepBound(
            schedule=schedule, placement=tuple(placement), num_microbatches=len(sizes), stages=tuple(found)
        )

    @property
    def seconds(self) -> float:
        """The largest of all bounds that hold for the schedule."""
        found = [*self._of_ranks(), *self._of_stages_and_links()]
        if self.schedule == "gpipe" and self._is_one_a_rank:
            found.append(self._of_gpipe())
        if self.schedule in ("1f1b", "interleaved_1f1b"):
            found += self._of_1f1b()
        found += self._of_rows()
        return max(found) * (1 - ROUNDING)

    @property
    def _is_one_a_rank(self) -> bool:
        return len(set(self.placement)) == len(self.placement)

    @cached_property
    def _in_s(self) -> list[float]:
        """in(k) of every stage, and in(S) with the last stage's own forward."""
        return [0.0, *accumulate(stage.forward_s + stage.send_s for stage in self.stages)]

    @cached_property
    def _out_s(self) -> list[float]:
        """out(k) of every stage, and out(S) with the last stage's own P."""
        pairs = [*pairwise(self.stages), (self.stages[-1], None)]
        return [0.0, *accumulate(of.path_s + (after.send_back_s if after else 0.0) for of, after in pairs)]

    @cached_property
    def _ending_s(self) -> float:
        """What stage 0 does after its last P."""
        first = self.stages[0]
        own_s = sum(stage.step_s for stage in self.stages if stage.rank == first.rank)
        sums_s = min(stage.sum_s for stage in self.stages if stage.rank == first.rank)
        return first.work_s - first.forward_s - first.path_s + sums_s + own_s

    def _of_ranks(self) -> list[float]:
        entered_s = self._in_s
        found: dict[int, list[float]] = {}
        for index, stage in enumerate(self.stages):
            found.setdefault(stage.rank, [entered_s[index], 0.0, stage.sum_s, 0.0])
            of = found[stage.rank]
            of[1] += self.num_microbatches * stage.work_s
            of[2] = min(of[2], stage.sum_s)
            of[3] += stage.step_s
        return [sum(of) for of in found.values()]

    def _of_stages_and_links(self) -> list[float]:
        entered_s, left_s, ending_s = self._in_s, self._out_s, self._ending_s
        found = []
        for stage in self.stages:
            longest_s = max(stage.send_s, stage.send_back_s)
            found.append(entered_s[-1] + left_s[-1] + (self.num_microbatches - 1) * longest_s + ending_s)
        # The last of a rank's F and P is a P of its first stage, for a microbatch passes that one first and last.
        for index, own_s in self._path_of_ranks():
            found.append(entered_s[index] + self.num_microbatches * own_s + left_s[index] + ending_s)
        return found

    def _path_of_ranks(self) -> list[tuple[int, float]]:
        """The first stage of every rank, and F and P of all of its stages on one microbatch."""
        found: dict[int, tuple[int, float]] = {}
        for index, stage in enumerate(self.stages):
            first, own_s = found.get(stage.rank, (index, 0.0))
            found[stage.rank] = first, own_s + stage.forward_s + stage.path_s
        return list(found.values())

    def _of_rows(self) -> list[float]:
        """What the rows of some ranks cannot be shorter than; see `row_bound.py`."""
        entered_s, left_s, ending_s, found = self._in_s, self._out_s, self._ending_s, []
        backward = Kind.I if GENERATORS[self.schedule].splits_backward else Kind.B
        forward, weight = Kind.F, Kind.W
        seconds: dict[tuple[int, Kind], float] = {}
        for index, of in enumerate(self.stages):
            seconds[index, forward], seconds[index, backward] = of.forward_s, of.path_s
            seconds[index, weight] = of.work_s - of.forward_s - of.path_s
        for parts in row_parts(self.schedule, max(self.placement) + 1, len(self.stages), self.num_microbatches):
            at, first = parts.first_backward, parts.first_stage
            gradient_s = entered_s[-1] + left_s[-1] - left_s[at] - self.stages[at].path_s
            begun_s = max(entered_s[first] + part_seconds(parts.before, seconds), gradient_s)
            until_s = begun_s + part_seconds(parts.until, seconds)
            own = [of for of in self.stages if of.rank == self.stages[first].rank]
            once_s = min(of.sum_s for of in own) + sum(of.step_s for of in own)
            found += [until_s + left_s[first] + ending_s, until_s + part_seconds(parts.rest, seconds) + once_s]
        return found

    def _of_gpipe(self) -> float:
        forward_s = max(max(stage.forward_s, stage.send_s) for stage in self.stages)
        backward_s = max(max(stage.path_s, stage.send_back_s) for stage in self.stages)
        path_s = self._in_s[-1] + self._out_s[-1]
        return path_s + (self.num_microbatches - 1) * (forward_s + backward_s) + self._ending_s

    def _of_1f1b(self) -> list[float]:
        """By ranks: from the first backward on, all backwards and the forwards that did not precede it."""
        num_ranks, entered_s, left_s, found = max(self.placement) + 1, self._in_s, self._out_s, []
        for rank in range(num_ranks):
            own = [index for index, of in enumerate(self.stages) if of.rank == rank]
            done = _forwards_before(num_ranks, len(self.stages), self.num_microbatches, rank)
            last = own[-1]
            # From its first backward, of its last stage, the rank is busy; then the gradient goes on to stage 0.
            before_s = entered_s[-1] + left_s[-1] - left_s[last] - self.stages[last].path_s
            busy_s = sum(
                self.num_microbatches * of.path_s + (self.num_microbatches - done[index]) * of.forward_s
                for index, of in ((index, self.stages[index]) for index in own)
            )
            found.append(before_s + busy_s + left_s[own[0]] + self._ending_s)
        return found


@cache
def _forwards_before(num_ranks: int, num_stages: int, num_microbatches: int, rank: int) -> Mapping[int, int]:
    """How many forwards of each stage of a rank precede its first backward."""
    shape = ScheduleShape(num_ranks=num_ranks, num_stages=num_stages, num_microbatches=num_microbatches)
    return interleaved_forwards(shape, rank)


def _message_s(
    segments: Sequence[Segment], placement: Sequence[int], here: int, there: int, cluster: Cluster, num_bytes: int
) -> float:
    """Seconds of a message to a neighbouring stage; 0 where there is none, or it is on the same rank."""
    if not 0 <= there < len(segments) or placement[here] == placement[there]:
        return 0.0
    return cluster.transfer_s(segments[here].device, segments[there].device, num_bytes)


def any_split_bound_s(
    schedule: str,
    placement: Sequence[int],
    sizes: Sequence[int],
    cluster: Cluster,
    model: CostSource,
    sums: LayerSums,
    num_replicas: int,
) -> float:
    """What no split over so many ranks can be below: the largest layer, an even share, and one microbatch's path.

    Devices that a split may leave out are taken to be the slowest.
    """
    rows, count, num_ranks = min(sizes), len(sizes), max(placement) + 1
    kinds = {device.rates: device for device in cluster.devices}
    of_kinds = {rates: sums.of(rows, device) for rates, device in kinds.items()}
    whole_s = {rates: of.cut_s(len(placement)) for rates, of in of_kinds.items()}
    shared_s = sorted(whole_s[device.rates] for device in cluster.devices)[:num_ranks]
    even_s = 1 / sum(1 / seconds for seconds in shared_s)
    if len(placement) == num_ranks:
        even_s = max(even_s, _floor_s(sums, rows, tuple(kinds.values()), num_ranks))
    else:
        even_s = max(even_s, min(of.largest_s for of in of_kinds.values()))
    splits_backward = GENERATORS[schedule].splits_backward
    path_s = min(
        sums.of(rows, device, PATH if splits_backward else BOTH).cut_s(len(placement)) for device in kinds.values()
    )
    found = [count * even_s, path_s]
    if len(kinds) == 1 and cluster.devices[0].profile is None:
        whole = model.stage(0, model.num_layers - 1)
        step_s = whole.step.seconds(cluster.devices[0])
        # Of several stages all sums but one may be hidden behind computations.
        is_one_a_rank = len(placement) == num_ranks
        added_s = _even_sum_s(cluster, sum(whole.tensor_bytes) // num_ranks, num_replicas) if is_one_a_rank else 0.0
        found.append((count * shared_s[0] + step_s) / num_ranks + added_s)
    return max(found) * (1 - ROUNDING)


def _floor_s(sums: LayerSums, rows: int, kinds: tuple[Device, ...], num_stages: int) -> float:
    """`floor_of`, found once for all schedules."""
    return sums.once(("floor", rows, tuple(device.rates for device in kinds), num_stages),
                     lambda: floor_of(tuple(sums.of(rows, device) for device in kinds), num_stages))  # fmt: skip


def _even_sum_s(cluster: Cluster, num_bytes: int, num_replicas: int) -> float:
    """Seconds of adding an even share of the gradients over replicas, on the faster links."""
    links = [link for link in (cluster.links.intra_node, cluster.links.inter_node) if link is not None]
    piece = num_bytes // max(num_replicas, 1)
    return 2 * (num_replicas - 1) * min(link.latency_s + piece / link.bytes_per_s for link in links)
