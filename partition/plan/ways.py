"""The ways to train, whatever the minibatch: what can be asked for its largest one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from partition.plan.search import Search
from partition.plan.shape import STRATEGIES, Shape


@dataclass(frozen=True, kw_only=True)
class Way:
    """A shape whose minibatch is left open."""

    shape: Shape
    device: int = 0
    """Where it needs only one."""
    is_one_example_each: bool = False
    """As many microbatches as examples."""
    is_recomputing: bool = False
    """Whatever layers need be are computed again."""

    @property
    def least(self) -> int:
        """Examples of the smallest minibatch: one in each microbatch."""
        return 1 if self.is_one_example_each else self.shape.num_replicas * self.shape.num_microbatches

    def of(self, minibatch_size: int) -> Shape:
        """The shape for a minibatch."""
        if not self.is_one_example_each:
            return replace(self.shape, minibatch_size=minibatch_size)
        name = self.shape.name.replace("accumulate-1", f"accumulate-{minibatch_size}")
        return replace(self.shape, name=name, minibatch_size=minibatch_size, num_microbatches=minibatch_size)


def ways(search: Search, counts: Sequence[int]) -> Iterator[Way]:
    """Every way once, in the order of the strategies."""
    for device in search.distinct_devices():
        if search.alone_refusal(device):
            continue
        yield from _ways_alone(search, counts, device)
    layers, devices = search.network.num_layers, len(search.cluster.devices)
    split = [shape for count in counts for shape in search.shapes_with(count)]
    split.sort(key=lambda shape: STRATEGIES.index(shape.strategy))
    for shape in split:
        has_devices = shape.num_ranks * shape.num_replicas <= devices
        if shape.num_stages <= layers and has_devices and not search.constraints_refusal(shape):
            yield Way(shape=shape)
            if search.is_recomputing:
                yield Way(shape=replace(shape, name=f"{shape.name}-recompute"), is_recomputing=True)


def _ways_alone(search: Search, counts: Sequence[int], device: int) -> Iterator[Way]:
    """One pass on a device, the given numbers of microbatches, and microbatches of one example."""
    admitted = set(search.config.planner.strategies or STRATEGIES)
    suffix = search.device_suffix(device)
    if admitted & {"whole", "shrink"}:
        yield Way(shape=_alone("whole", f"whole{suffix}", 1), device=device)
    if "accumulate" in admitted:
        for count in (count for count in counts if count > 1):
            yield Way(shape=_alone("accumulate", f"accumulate-{count}{suffix}", count), device=device)
        shape = _alone("accumulate", f"accumulate-1{suffix}", 1)
        yield Way(shape=shape, device=device, is_one_example_each=True)
    if search.is_recomputing:
        for count in counts:
            shape = _alone("recompute", f"recompute-{count}{suffix}", count)
            yield Way(shape=shape, device=device, is_recomputing=True)


def _alone(strategy: str, name: str, num_microbatches: int) -> Shape:
    return Shape(name=name, strategy=strategy, minibatch_size=num_microbatches, num_microbatches=num_microbatches)
