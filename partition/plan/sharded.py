"""Fully sharded data parallel: every device holds a part of every parameter and gathers a layer when it needs it.

It runs by torch's `fully_shard` with automatic differentiation, not on this project's stages, so its figures are
estimates: of bytes, what torch is known to keep; of seconds, the same kernels, with gathers and reductions overlapped.

    forward    gather 0 | gather 1  | gather 2  |            one layer ahead of the computation
                        | compute 0 | compute 1 | compute 2
    backward            the same from the last layer to the first, and behind each computation the reduction of its
                        gradients, on the same link

(Zhao et al. 2023, PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from partition.costs import ActionCost, Cluster, CostModel, Device, StageCost
from partition.graph import Keeps, Layer, Unit
from partition.graph.layers import Gate, Part
from partition.plan.candidate import Prediction, RankLoad, StageMemory


@dataclass(frozen=True, kw_only=True)
class ShardedLayout:
    """A model over the first `num_ranks` devices, each with its share of the minibatch."""

    cluster: Cluster
    model: CostModel
    num_ranks: int
    minibatch_size: int

    @property
    def layers(self) -> Sequence[Unit]:
        """Units of the network, in order."""
        return self.model.network.layers

    @property
    def rows(self) -> int:
        """The largest share of the minibatch."""
        return -(-self.minibatch_size // self.num_ranks)

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Elements of one rank's part of every unit; units that are alike have as many."""
        of_kind = {unit.kind: sharded_elements(unit, self.num_ranks) for unit in self.layers}
        return tuple(of_kind[unit.kind] for unit in self.layers)

    @cached_property
    def seconds(self) -> Callable[[StageCost, str], float]:
        """Seconds of an action of one layer on the slowest device; layers that are alike are asked for once."""

        @cache
        def of(stage: StageCost, action: str) -> float:
            cost: ActionCost = getattr(stage.microbatch(self.rows), action)
            return max(cost.seconds(device) for device in self.kinds)

        return of

    @cached_property
    def ring_s(self) -> Callable[[int], float]:
        """Seconds to gather, or to reduce and scatter, parts of so many bytes around a ring of all ranks."""

        @cache
        def of(num_bytes: int) -> float:
            return (self.num_ranks - 1) * max(self.cluster.transfer_s(*link, num_bytes) for link in self.links)

        return of

    @cached_property
    def kinds(self) -> tuple[Device, ...]:
        """A device of every speed."""
        return tuple({device.rates: device for device in self.cluster.devices[: self.num_ranks]}.values())

    @cached_property
    def links(self) -> tuple[tuple[int, int], ...]:
        """A link of every kind around the ring of all ranks."""
        ring = ((rank, (rank + 1) % self.num_ranks) for rank in range(self.num_ranks))
        return tuple({self.cluster.link_kind(*link): link for link in ring}.values())


def sharded_elements(layer: Unit, num_ranks: int) -> int:
    """Elements of one rank's part of a unit: rows of every tensor in equal parts, the last ones padded."""
    return sum(
        -(-part.out_features // num_ranks) * (math.prod(part.weight_shape[1:]) + part.has_bias)
        for part in layer.weighted
    )


def kept_columns(part: Part) -> int:
    """Columns that automatic differentiation keeps of a part, at most."""
    match part:
        case Layer():
            return part.out_features * (2 if part.activation.keeps is Keeps.PRE_ACTIVATION else 1)
        case Gate():  # both pre-activations, silu of one, the product
            return 4 * part.features
        case _:  # input and output, or output and mask
            return 2 * part.features


def sharded_memory(layout: ShardedLayout) -> StageMemory:
    """An upper estimate of what one rank holds at its peak, in the backward of the widest layer."""
    item, network = layout.model.itemsize, layout.model.network
    shard = sum(layout.elements) * item
    tensors = sum(len(part.tensor_elements) for layer in layout.layers for part in layer.weighted)
    elements = shard // item
    state = layout.model.optimizer.state_bytes(elements, tensors, item)
    whole = [layout.num_ranks * elements * item for elements in layout.elements]
    neighbours = [sum(whole[max(0, index - 1) : index + 1]) for index in range(len(whole))]
    # Two layers gathered, each also in the buffer that it was gathered into, and one layer's gradients as they are
    # and in the buffer that they are reduced from.
    workspace = 2 * max(neighbours) + 2 * max(whole)
    # Blocks are larger than what they hold by less than their granularity, and there are a few for each tensor.
    rules = layout.model.rules
    workspace += rules.library_bytes + 16 * tensors * (rules.granularity_bytes - 1)
    widest = max(part.out_features for layer in layout.layers for part in layer.weighted)
    last = layout.layers[-1].out_features
    # The loss keeps its log-probabilities and makes their gradient; two gradients of activations are alive at once.
    losses = layout.rows * item * (2 * last + 2 * widest)
    kept = sum(kept_columns(part) for layer in layout.layers for part in layer.parts)
    kept += sum(layer.out_features for layer in layout.layers if layer.is_residual)
    activations = layout.rows * kept * item + losses
    targets = 8 if network.loss.has_class_targets else last * item
    data = layout.rows * (layout.layers[0].in_features * item + targets)
    parts = {
        "parameters_bytes": shard,
        "gradients_bytes": shard,
        "optimizer_bytes": state,
        "activations_bytes": activations,
        "boundary_bytes": 0,
        "workspace_bytes": workspace,
        "data_bytes": data,
    }
    return StageMemory(**parts, peak_bytes=sum(parts.values()))


def sharded_prediction(layout: ShardedLayout, loads: Sequence[RankLoad]) -> Prediction:
    """The estimate of a step."""
    gathers = [_ring_s(layout, index) for index in range(len(layout.layers))]
    forward = _overlapped([_compute_s(layout, index, "forward") for index in range(len(gathers))], gathers)
    # Backwards, the link carries a layer's gather and the reduction of the layer after it.
    both = [gather + (gathers[index + 1] if index + 1 < len(gathers) else 0.0) for index, gather in enumerate(gathers)]
    computes = [_compute_s(layout, index, "backward") for index in range(len(gathers))]
    backward = _overlapped(computes[::-1], both[::-1]) + gathers[0]
    step_s = forward + backward + _step_s(layout)
    busy_s = sum(computes) + sum(_compute_s(layout, index, "forward") for index in range(len(gathers)))
    whole = sum(layer.parameter_elements for layer in layout.layers) * layout.model.itemsize
    return Prediction(
        step_s=step_s,
        samples_per_s=layout.minibatch_size / step_s,
        relative_progress_s=None,
        device_seconds_per_sample=step_s * layout.num_ranks / layout.minibatch_size,
        bubble_fraction=max(0.0, 1.0 - (busy_s + _step_s(layout)) / step_s),
        communication_bytes=3 * whole * (layout.num_ranks - 1),
        peak_bytes=tuple(load.peak_bytes for load in loads),
        reserved_bytes=tuple(load.reserved_bytes for load in loads),
        context_bytes=tuple(load.context_bytes for load in loads),
    )


def _overlapped(computes: Sequence[float], transfers: Sequence[float]) -> float:
    """Seconds of computations in a row, each after its own transfer, transfers one after another and one ahead."""
    arrived_s = done_s = started_s = 0.0
    for compute_s, transfer_s in zip(computes, transfers, strict=True):
        # The transfer may begin when the computation before last is done: two layers are gathered at most.
        arrived_s = max(arrived_s, started_s) + transfer_s
        started_s = max(done_s, arrived_s)
        done_s = started_s + compute_s
    return done_s


def _compute_s(layout: ShardedLayout, index: int, action: str) -> float:
    """Seconds of one layer on the slowest device."""
    return layout.seconds(layout.model.stage(index, index), action)


def _ring_s(layout: ShardedLayout, index: int) -> float:
    """Seconds to gather, or to reduce and scatter, one layer around a ring of all ranks."""
    return layout.ring_s(layout.elements[index] * layout.model.itemsize)


def _step_s(layout: ShardedLayout) -> float:
    """Norms and update of a rank's part."""
    whole = layout.model.stage(0, len(layout.layers) - 1).step
    return max(whole.seconds(device) for device in layout.kinds) / layout.num_ranks
