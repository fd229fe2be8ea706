"""The seconds of every action of a layout whose stages have layers and devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from partition.costs import Cluster, CostSource, StageCost
from partition.plan.layout import Layout
from partition.plan.split import Segment
from partition.schedule import Kind, ReplayCosts
from partition.schedule.replay_costs import SecondsTable

_COMPUTE = {
    Kind.F: "forward",
    Kind.B: "backward",
    Kind.I: "input_grad",
    Kind.W: "weight_grad",
    Kind.R: "recompute",
}


def replay_costs(
    layout: Layout,
    segments: Sequence[Segment],
    cluster: Cluster,
    model: CostSource,
    sum_devices: Sequence[Sequence[int]] = (),
    kinds: Collection[Kind] | None = None,
) -> ReplayCosts:
    """The seconds of every action of one replica's layout, by stage and microbatch size.

    `sum_devices` gives the devices over which the gradients of each stage are added, in order; empty without replicas.
    Of `kinds` alone, where they are given.
    """
    costs = [model.stage(*segment.layers) for segment in segments]
    devices = [cluster.devices[segment.device] for segment in segments]
    sizes = layout.distinct_sizes
    of_sizes = [[cost.microbatch(rows) for rows in sizes] for cost in costs]
    seconds = {
        kind: tuple(
            tuple([getattr(cost, name).seconds(device) for cost in of])
            for of, device in zip(of_sizes, devices, strict=True)
        )
        for kind, name in _COMPUTE.items()
        if kinds is None or kind in kinds
    }
    ends = [cluster.step_end_s if is_first else 0.0 for is_first in _first_of_rank(layout.schedule.placement)]
    seconds[Kind.STEP] = tuple(
        (cost.step.seconds(device) + end_s,) for cost, device, end_s in zip(costs, devices, ends, strict=True)
    )
    seconds |= _postings(layout, costs, cluster)
    if sum_devices:
        seconds[Kind.REDUCE_GRAD] = tuple(
            (cluster.sum_s(devices_of, cost.tensor_bytes),) for cost, devices_of in zip(costs, sum_devices, strict=True)
        )
    hops = list(pairwise(segments))
    forward = [
        tuple(cluster.transfer_s(here.device, there.device, cost.microbatch(rows).output_bytes) for rows in sizes)
        for (here, there), cost in zip(hops, costs, strict=False)
    ]
    backward = [
        tuple(cluster.transfer_s(there.device, here.device, cost.microbatch(rows).grad_input_bytes) for rows in sizes)
        for (here, there), cost in zip(hops, costs[1:], strict=True)
    ]
    nothing = (0.0,) * len(sizes)
    return ReplayCosts(
        size_class=layout.size_class,
        seconds=seconds,
        send_forward_s=(*forward, nothing),
        send_backward_s=(nothing, *backward),
    )


def _first_of_rank(placement: Sequence[int]) -> list[bool]:
    """Whether each stage is the first of its rank: where what a rank does once a step is entered."""
    return [rank not in placement[:stage] for stage, rank in enumerate(placement)]


def _postings(layout: Layout, costs: Sequence[StageCost], cluster: Cluster) -> dict[Kind, SecondsTable]:
    """What posting messages takes of the ranks, where that has been measured."""
    if not any(cluster.posting_s(0)):
        return {}
    down = [[cost.microbatch(rows).output_bytes for rows in layout.distinct_sizes] for cost in costs]
    up = [[cost.microbatch(rows).grad_input_bytes for rows in layout.distinct_sizes] for cost in costs]
    nothing = [0] * len(layout.distinct_sizes)
    of_kinds = {
        Kind.SEND_F: (0, down),
        Kind.SEND_B: (0, up),
        Kind.RECV_F: (1, [nothing, *down[:-1]]),
        Kind.RECV_B: (1, [*up[1:], nothing]),
    }
    return {
        kind: tuple(tuple(cluster.posting_s(num_bytes)[side] for num_bytes in of_stage) for of_stage in sizes)
        for kind, (side, sizes) in of_kinds.items()
    }
