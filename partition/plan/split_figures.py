"""The seconds of the stages of several splits over the same devices, as arrays: of a stage a row, of a split a column.

The letters are those of `bounds.py`. Sums go from the first stage to the last, as they would for one split alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import numpy as np

from partition.costs import Cluster
from partition.plan.layer_sums import Floats, Integers, LayerSums
from partition.plan.split import Segment
from partition.schedule import Kind


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """Seconds of all stages: of every microbatch, and once."""

    placement: tuple[int, ...]
    num_microbatches: int
    splits_backward: bool
    forward_s: Floats
    path_s: Floats
    """P of the formulas."""
    work_s: Floats
    """Forward and the whole backward."""
    send_s: Floats
    """f of the formulas; 0 where the next stage is on the same rank."""
    send_back_s: Floats
    sum_s: Floats
    """Of gradients over replicas."""
    step_s: Floats

    @staticmethod
    def of(
        placement: Sequence[int],
        sizes: Sequence[int],
        splits: Sequence[Sequence[Segment]],
        cluster: Cluster,
        sums: LayerSums,
        num_replicas: int,
        *,
        splits_backward: bool,
    ) -> SplitFigures:
        """The figures of the first replica, whose segments these are; those of one stage are all on one device."""
        rows, devices = min(sizes), [segment.device for segment in splits[0]]
        firsts = np.array([[segment.first_layer for segment in split] for split in splits], dtype=np.int64).T
        edges = np.vstack((firsts, np.full((1, len(splits)), sums.model.num_layers)))
        actions = ("forward", *(("input_grad", "weight_grad") if splits_backward else ("backward",)))
        forward_s, path_s, *weight_s = (_stage_s(sums, rows, cluster, devices, edges, action) for action in actions)
        send_s, send_back_s = np.zeros_like(forward_s), np.zeros_like(forward_s)
        for stage, (here, there) in enumerate(pairwise(placement)):
            if here != there:
                one, other, cuts = devices[stage], devices[stage + 1], edges[stage + 1]
                send_s[stage] = _sent_s(sums, rows, cluster, one, other)[cuts]
                send_back_s[stage + 1] = _sent_s(sums, rows, cluster, other, one)[cuts]
        sum_s, step_s = _once_s(splits, cluster, sums, max(placement) + 1, num_replicas)
        return SplitFigures(
            placement=tuple(placement),
            num_microbatches=len(sizes),
            splits_backward=splits_backward,
            forward_s=forward_s,
            path_s=path_s,
            work_s=sum(weight_s, forward_s + path_s),
            send_s=send_s,
            send_back_s=send_back_s,
            sum_s=sum_s,
            step_s=step_s,
        )

    @property
    def num_ranks(self) -> int:
        """Of one replica."""
        return len(self.stages_of[0])

    @cached_property
    def stages_of(self) -> Integers:
        """The first stage of every rank, then the second of every rank, and so on."""
        order = np.argsort(self.placement, kind="stable")
        return np.ascontiguousarray(order.reshape(max(self.placement) + 1, -1).T)

    @cached_property
    def in_s(self) -> Floats:
        """in(k) of every stage, and in(S) with the last stage's own forward."""
        return _running(self.forward_s + self.send_s)

    @cached_property
    def out_s(self) -> Floats:
        """out(k) of every stage, and out(S) with the last stage's own P."""
        through_s = self.path_s.copy()
        through_s[:-1] += self.send_back_s[1:]
        return _running(through_s)

    @cached_property
    def rank_sum_s(self) -> Floats:
        """Of every rank the shortest of its sums: the others may be hidden behind computations."""
        found: Floats = self.sum_s[self.stages_of].min(axis=0)
        return found

    @cached_property
    def rank_step_s(self) -> Floats:
        """Of every rank the steps of its stages."""
        found: Floats = np.cumsum(self.step_s[self.stages_of], axis=0)[-1]
        return found

    @cached_property
    def ending_s(self) -> Floats:
        """What stage 0 does after its last P."""
        rank = self.placement[0]
        weight_s = self.work_s[0] - self.forward_s[0] - self.path_s[0]
        found: Floats = weight_s + self.rank_sum_s[rank] + self.rank_step_s[rank]
        return found

    @cached_property
    def by_action(self) -> Mapping[tuple[int, Kind], Floats]:
        """Seconds of every computation on a microbatch, by stage and kind."""
        backward, forward, weight = Kind.I if self.splits_backward else Kind.B, Kind.F, Kind.W
        weight_s, seconds = self.work_s - self.forward_s - self.path_s, dict[tuple[int, Kind], Floats]()
        for stage in range(len(self.placement)):
            seconds[stage, forward], seconds[stage, backward] = self.forward_s[stage], self.path_s[stage]
            seconds[stage, weight] = weight_s[stage]
        return seconds


def _running(seconds: Floats) -> Floats:
    """What comes before every stage, and after the last."""
    found = np.zeros((len(seconds) + 1, *seconds.shape[1:]))
    np.cumsum(seconds, axis=0, out=found[1:])
    return found


def _stage_s(
    sums: LayerSums, rows: int, cluster: Cluster, devices: Sequence[int], edges: Integers, action: str
) -> Floats:
    """Seconds of an action on a microbatch."""
    of_devices = [sums.of(rows, cluster.devices[device], (action,)) for device in devices]
    if all(of is of_devices[0] for of in of_devices):
        ends, starts = of_devices[0]
        found: Floats = ends[edges[1:]] - starts[edges[:-1]]
        return found
    each = zip(of_devices, edges[:-1], edges[1:], strict=True)
    return np.array([of.ends[until] - of.starts[since] for of, since, until in each])


def _sent_s(sums: LayerSums, rows: int, cluster: Cluster, here: int, there: int) -> Floats:
    """Seconds of a message over every cut, one way."""
    figures = cluster.transfer_figures(here, there)
    return sums.over_cuts(rows, ("one way", figures), lambda each: cluster.transfer_s(here, there, each)).seconds


def _once_s(
    splits: Sequence[Sequence[Segment]], cluster: Cluster, sums: LayerSums, num_ranks: int, num_replicas: int
) -> tuple[Floats, Floats]:
    """Seconds of the sum over replicas and of the step of every stage, each asked for once."""
    known: dict[Segment, tuple[float, float]] = {}
    for segment in dict.fromkeys(segment for split in splits for segment in split):
        cost, device = sums.model.stage(segment.first_layer, segment.last_layer), cluster.devices[segment.device]
        column = [segment.device + replica * num_ranks for replica in range(num_replicas)]
        sum_s = cluster.sum_s(column, cost.tensor_bytes) if num_replicas > 1 else 0.0
        known[segment] = sum_s, sums.once(("step", cost, device.rates), partial(cost.step.seconds, device))
    found = np.array([[known[segment] for segment in split] for split in splits])
    return found[:, :, 0].T, found[:, :, 1].T
