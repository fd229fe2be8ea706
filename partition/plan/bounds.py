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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from partition.costs import Cluster, CostSource, Device
from partition.plan.array_split import floor_of
from partition.plan.layer_sums import BOTH, PATH, Floats, Integers, LayerSums, least_s
from partition.plan.row_bound import part_seconds, row_parts
from partition.plan.split_figures import SplitFigures
from partition.schedule.generators import GENERATORS
from partition.schedule.rows import Shape as ScheduleShape
from partition.schedule.rows import interleaved_forwards

ROUNDING = 1e-9
"""Relative: the bounds add in another order than a replay does."""


@dataclass(frozen=True, kw_only=True)
class StepBounds:
    """The bounds of one schedule on some splits."""

    schedule: str
    of: SplitFigures

    @property
    def seconds(self) -> list[float]:
        """The largest of all bounds that hold for the schedule, for every split."""
        found = [self._of_ranks(), self._of_links(), self._of_paths()]
        if self.schedule == "gpipe" and self.of.num_ranks == len(self.of.placement):
            found.append(self._of_gpipe())
        if self.schedule in ("1f1b", "interleaved_1f1b"):
            found.append(self._of_1f1b())
        found += self._of_rows()
        largest: Floats = np.max([of.max(axis=0) if of.ndim == 2 else of for of in found], axis=0)
        return [float(of) for of in largest * (1 - ROUNDING)]

    def _of_ranks(self) -> Floats:
        of = self.of
        busy_s: Floats = np.cumsum(of.num_microbatches * of.work_s[of.stages_of], axis=0)[-1]
        found: Floats = of.in_s[of.stages_of[0]] + busy_s + of.rank_sum_s + of.rank_step_s
        return found

    def _of_links(self) -> Floats:
        of = self.of
        longest_s = np.maximum(of.send_s, of.send_back_s)
        found: Floats = of.in_s[-1] + of.out_s[-1] + (of.num_microbatches - 1) * longest_s + of.ending_s
        return found

    def _of_paths(self) -> Floats:
        """By ranks: the last of a rank's F and P is a P of its first stage, that a microbatch passes first and last."""
        of, firsts = self.of, self.of.stages_of[0]
        own_s: Floats = np.zeros_like(of.forward_s[firsts])
        for stages in of.stages_of:
            own_s = own_s + of.forward_s[stages] + of.path_s[stages]
        found: Floats = of.in_s[firsts] + of.num_microbatches * own_s + of.out_s[firsts] + of.ending_s
        return found

    def _of_rows(self) -> list[Floats]:
        """What the rows of some ranks cannot be shorter than; see `row_bound.py`."""
        of, seconds, found = self.of, self.of.by_action, list[Floats]()
        for parts in row_parts(self.schedule, of.num_ranks, len(of.placement), of.num_microbatches):
            at, first = parts.first_backward, parts.first_stage
            gradient_s = of.in_s[-1] + of.out_s[-1] - of.out_s[at] - of.path_s[at]
            begun_s = np.maximum(of.in_s[first] + part_seconds(parts.before, seconds), gradient_s)
            until_s = begun_s + part_seconds(parts.until, seconds)
            rank = of.placement[first]
            once_s = of.rank_sum_s[rank] + of.rank_step_s[rank]
            found += [until_s + of.out_s[first] + of.ending_s, until_s + part_seconds(parts.rest, seconds) + once_s]
        return found

    def _of_gpipe(self) -> Floats:
        of = self.of
        forward_s = np.maximum(of.forward_s, of.send_s).max(axis=0)
        backward_s = np.maximum(of.path_s, of.send_back_s).max(axis=0)
        found: Floats = of.in_s[-1] + of.out_s[-1] + (of.num_microbatches - 1) * (forward_s + backward_s) + of.ending_s
        return found

    def _of_1f1b(self) -> Floats:
        """By ranks: from the first backward on, all backwards and the forwards that did not precede it."""
        of, firsts, lasts = self.of, self.of.stages_of[0], self.of.stages_of[-1]
        count = of.num_microbatches
        done = _forwards_before(of.num_ranks, len(of.placement), count)[of.stages_of, np.newaxis]
        # From its first backward, of its last stage, the rank is busy; then the gradient goes on to stage 0.
        before_s = of.in_s[-1] + of.out_s[-1] - of.out_s[lasts] - of.path_s[lasts]
        each_s = count * of.path_s[of.stages_of] + (count - done) * of.forward_s[of.stages_of]
        found: Floats = before_s + np.cumsum(each_s, axis=0)[-1] + of.out_s[firsts] + of.ending_s
        return found


@cache
def _forwards_before(num_ranks: int, num_stages: int, num_microbatches: int) -> Integers:
    """How many forwards of every stage precede the first backward of its rank."""
    shape = ScheduleShape(num_ranks=num_ranks, num_stages=num_stages, num_microbatches=num_microbatches)
    found = np.zeros(num_stages, dtype=np.int64)
    for rank in range(num_ranks):
        of_rank = interleaved_forwards(shape, rank)
        found[list(of_rank)] = list(of_rank.values())
    return found


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
    rows, count, num_ranks, num_stages = min(sizes), len(sizes), max(placement) + 1, len(placement)
    kinds = tuple({device.rates: device for device in cluster.devices}.values())

    def all_s(*actions: str) -> float:
        return sums.once(("all", rows, tuple(device.rates for device in kinds), actions, num_stages),
                         lambda: least_s([sums.of(rows, device, actions) for device in kinds], num_stages))  # fmt: skip

    path_s = all_s(*(PATH if GENERATORS[schedule].splits_backward else BOTH))
    found = [count * _even_s(cluster, kinds, sums, rows, num_ranks, num_stages), path_s]
    if num_stages == num_ranks and schedule in ("1f1b", "gpipe"):
        # The mean over ranks of what `StepBounds` has of each; no rank of 1F1B begins with more forwards than this.
        begun = min(num_ranks, count) if schedule == "1f1b" else 1
        each_s = (count - 1) * all_s("backward") + (count - begun) * all_s("forward")
        found.append(path_s + each_s / num_ranks)
    if len(kinds) == 1 and cluster.devices[0].profile is None:
        whole = model.stage(0, model.num_layers - 1)
        step_s = whole.step.seconds(cluster.devices[0])
        # Of several stages all sums but one may be hidden behind computations.
        is_one_a_rank = num_stages == num_ranks
        added_s = _even_sum_s(cluster, sum(whole.tensor_bytes) // num_ranks, num_replicas) if is_one_a_rank else 0.0
        found.append((count * all_s(*BOTH) + step_s) / num_ranks + added_s)
    return max(found) * (1 - ROUNDING)


def _even_s(
    cluster: Cluster, kinds: tuple[Device, ...], sums: LayerSums, rows: int, num_ranks: int, num_stages: int
) -> float:
    """What no split's busiest rank can be below, on one microbatch.

    With weights w that sum to 1 it takes no less than the sum over layers of the least w s of all devices. Here w is
    the speed of each with all layers: where devices are alike but for that, the sum is the whole.
    """
    rates, of_kinds = tuple(device.rates for device in kinds), tuple(sums.of(rows, device) for device in kinds)
    speeds = {device: 1 / of.cut_s(num_stages) for device, of in zip(rates, of_kinds, strict=True)}
    fastest = sorted((speeds[device.rates] for device in cluster.devices), reverse=True)[:num_ranks]
    even_s = least_s(of_kinds, num_stages, tuple(speeds.values())) / sum(fastest)
    if num_stages == num_ranks:
        return max(even_s, _floor_s(sums, rows, kinds, num_ranks))
    return max(even_s, float(np.minimum.reduce([of.alone_s for of in of_kinds]).max()))


def _floor_s(sums: LayerSums, rows: int, kinds: tuple[Device, ...], num_stages: int) -> float:
    """`floor_of`, found once for all schedules."""
    return sums.once(("floor", rows, tuple(device.rates for device in kinds), num_stages),
                     lambda: floor_of(tuple(sums.of(rows, device) for device in kinds), num_stages))  # fmt: skip


def _even_sum_s(cluster: Cluster, num_bytes: int, num_replicas: int) -> float:
    """Seconds of adding an even share of the gradients over replicas, on the faster links."""
    links = [link for link in (cluster.links.intra_node, cluster.links.inter_node) if link is not None]
    piece = num_bytes // max(num_replicas, 1)
    return 2 * (num_replicas - 1) * min(link.latency_s + piece / link.bytes_per_s for link in links)
