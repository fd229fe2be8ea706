"""Running sums over the layers of a chain, from which every stage's seconds follow, as arrays.

A stage costs what its layers cost alone and what each pair of neighbours adds (an activation computed again for the
weight gradient of the next layer), so with alone[j] the sum over layers 0..j-1 and added[j] that over pairs up to j

    stage(first, last) = ends[last + 1] - starts[first]         ends[j] = alone[j] + added[j - 1]
                                                                starts[i] = alone[i] + added[i]
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partition.costs import ChainCosts, Device, MicrobatchCost, StageSource
from partition.plan.occupancy import StageOccupancy

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Lists = tuple[list[float], list[float]]
"""Ends and starts, as `Sums` has them."""

BOTH = ("forward", "recompute", "backward")
"""What a stage does with a microbatch."""
PATH = ("forward", "input_grad")
"""What a microbatch goes through from its first action to the one that the stage before waits for."""


class Sums(NamedTuple):
    """Seconds of all stages of one kind of device and one microbatch size."""

    ends: Floats
    """[last layer + 1]; the first entry is of no stage"""
    starts: Floats
    """[first layer]"""

    @property
    def is_increasing(self) -> bool:
        """Whether a stage never takes less for having a layer more, on either side."""
        return bool((np.diff(self.starts) >= 0).all() and (np.diff(self.ends[1:]) >= 0).all())

    @property
    def lists(self) -> Lists:
        """Ends and starts."""
        return self.ends.tolist(), self.starts.tolist()

    def stage_s(self, first_layer: int, last_layer: int) -> float:
        """Seconds of one stage."""
        return float(self.ends[last_layer + 1] - self.starts[first_layer])

    @property
    def whole_s(self) -> float:
        """All layers as one stage."""
        return float(self.ends[-1] - self.starts[0])

    def cut_s(self, num_stages: int) -> float:
        """What all layers cannot be below in so many stages: a cut saves what the layers beside it add."""
        saved = np.sort(self.added_s)[::-1][: num_stages - 1]
        return self.whole_s - float(saved.sum())

    @property
    def alone_s(self) -> Floats:
        """Every layer as a stage of its own."""
        found: Floats = self.ends[1:] - self.starts
        return found

    @property
    def added_s(self) -> Floats:
        """What every two neighbours add in one stage."""
        found: Floats = self.starts[1:] - self.ends[1:-1]
        return found


def least_s(kinds: Sequence[Sums], num_stages: int, scales: Sequence[float] | None = None) -> float:
    """What all layers in so many stages cannot be below together, each of them on the device best for it.

    Devices differ by layer: one has the faster arithmetic, another the faster memory. `scales` multiply the seconds
    of each.
    """
    if len(kinds) == 1:
        return kinds[0].cut_s(num_stages) * (scales[0] if scales else 1.0)
    alone, added = (
        np.minimum.reduce([of * scale for of, scale in zip(figures, scales or [1.0] * len(kinds), strict=True)])
        for figures in ([of.alone_s for of in kinds], [of.added_s for of in kinds])
    )
    return float(alone.sum() + np.minimum(added, 0.0).sum())


class Cuts(NamedTuple):
    """Seconds of every cut over links of one kind, for one microbatch size."""

    number: int
    """Tells them from all others of a chain."""
    seconds: Floats
    """Of one microbatch's two messages, by the number of layers before a cut; nothing at both ends."""
    largest_s: float


def _seconds(cost: MicrobatchCost, device: Device, actions: Sequence[str]) -> float:
    seconds: list[float] = [getattr(cost, name).seconds(device) for name in actions]
    return sum(seconds)


class LayerSums:
    """The running sums of a chain; layers that are alike are priced once."""

    def __init__(self, model: StageSource) -> None:
        self.model = model
        self._known: dict[object, Sums] = {}
        self._known_lists: dict[object, Lists] = {}
        self._known_most: dict[object, list[int]] = {}
        self._known_alone: dict[tuple[int, ...], list[StageOccupancy | None]] = {}
        self._known_cuts: dict[tuple[int, Hashable], Cuts] = {}
        self._known_once: dict[object, float] = {}
        self._known_bytes: dict[int, tuple[Integers, NDArray[np.intp]]] = {}
        self._known_sent: dict[int, list[int]] = {}

    def of(self, rows: int, device: Device, actions: tuple[str, ...] = BOTH) -> Sums:
        """The sums of some actions on microbatches of so many examples."""
        key = (rows, device.rates, actions)
        if key not in self._known:
            make = self._of_table if isinstance(self.model, ChainCosts) else self._of_stages
            self._known[key] = make(rows, device, actions)
        return self._known[key]

    def lists(self, rows: int, device: Device, actions: tuple[str, ...]) -> Lists:
        """The same as lists."""
        key = (rows, device.rates, actions)
        if key not in self._known_lists:
            self._known_lists[key] = self.of(rows, device, actions).lists
        return self._known_lists[key]

    def once(self, key: object, find: Callable[[], float]) -> float:
        """A figure that follows from the sums, found at the first question after it."""
        if key not in self._known_once:
            self._known_once[key] = find()
        return self._known_once[key]

    def most_bytes(self, sizes: tuple[int, ...], num_microbatches: int) -> list[int]:
        """What the layers up to each one cannot exceed, were each of them a stage and everything in flight at once.

        Neighbours in one stage share what one hands to the other, so a difference of these is no less than what a
        stage needs.
        """
        key = (sizes, num_microbatches)
        if key not in self._known_most:
            most = [occupancy.most_bytes_of(num_microbatches) if occupancy else 0 for occupancy in self._alone(sizes)]
            index = self._stages[1][: self.model.num_layers]
            self._known_most[key] = [0, *np.cumsum(np.array(most, dtype=np.int64)[index]).tolist()]
        return self._known_most[key]

    def _alone(self, sizes: tuple[int, ...]) -> list[StageOccupancy | None]:
        """The bytes of the distinct stages; None for a pair of layers."""
        if sizes not in self._known_alone:
            distinct, index = self._stages
            is_alone = np.bincount(index[: self.model.num_layers], minlength=len(distinct)) > 0
            self._known_alone[sizes] = [
                StageOccupancy(self.model.stage(*of), sizes, 1) if alone else None
                for of, alone in zip(distinct, is_alone.tolist(), strict=True)
            ]
        return self._known_alone[sizes]

    def over_cuts(self, rows: int, figures: Hashable, seconds: Callable[[int], float]) -> Cuts:
        """What every cut takes, of the bytes that it carries forward.

        At both ends of the chain nothing is sent, which is not asked for. `figures` tell `seconds` from any other.
        """
        key = (rows, figures)
        if key not in self._known_cuts:
            of_cuts = self._over_cuts(rows, seconds)
            self._known_cuts[key] = Cuts(len(self._known_cuts), of_cuts, float(of_cuts.max()))
        return self._known_cuts[key]

    def _over_cuts(self, rows: int, seconds: Callable[[int], float]) -> Floats:
        distinct, index = self._sent(rows)
        inner: Floats = np.array([seconds(num_bytes) for num_bytes in distinct.tolist()], dtype=np.float64)[index]
        return np.concatenate(([0.0], inner, [0.0]))

    def sent_bytes(self, rows: int, cut: int) -> int:
        """What a cut carries forward, and as much back, by the number of layers before it; 0 at both ends."""
        if rows not in self._known_sent:
            distinct, index = self._sent(rows)
            self._known_sent[rows] = [0, *distinct[index].tolist(), 0]
        return self._known_sent[rows][cut]

    def _sent(self, rows: int) -> tuple[Integers, NDArray[np.intp]]:
        """The distinct numbers of bytes, and which one each cut has."""
        if rows not in self._known_bytes:
            self._known_bytes[rows] = np.unique(np.array(self._sent_by_cut(rows), dtype=np.int64), return_inverse=True)
        return self._known_bytes[rows]

    def _sent_by_cut(self, rows: int) -> list[int]:
        if isinstance(self.model, ChainCosts):
            return [layer.activation_bytes for layer in self.model.chain.layers[:-1]]
        layers = range(self.model.num_layers - 1)
        return [self.model.stage(layer, layer).microbatch(rows).output_bytes for layer in layers]

    def _of_table(self, rows: int, device: Device, actions: tuple[str, ...]) -> Sums:
        """Layers of a table add nothing to one another."""
        assert isinstance(self.model, ChainCosts)
        assert rows == self.model.microbatch_rows, "a table has one size"
        sums = [np.array(self.model.running_sums(name), dtype=np.float64) for name in actions if name != "recompute"]
        total: Floats = np.add.reduce(sums) * self.model.slowdown(device)
        return Sums(total, total[:-1])

    def _of_stages(self, rows: int, device: Device, actions: tuple[str, ...]) -> Sums:
        distinct, index = self._stages
        values = np.array([_seconds(self.model.stage(*of).microbatch(rows), device, actions) for of in distinct])
        layers = self.model.num_layers
        alone, pairs = values[index[:layers]], values[index[layers:]]
        added = np.concatenate(([0.0], np.cumsum(pairs - alone[:-1] - alone[1:])))
        total = np.concatenate(([0.0], np.cumsum(alone)))
        return Sums(np.concatenate(([0.0], total[1:] + added)), total[:-1] + added)

    @cached_property
    def _stages(self) -> tuple[list[tuple[int, int]], NDArray[np.intp]]:
        """Every single layer and every pair of neighbours: those that differ, and which each one is."""
        count, found = self.model.num_layers, dict[object, int]()
        distinct: list[tuple[int, int]] = []
        index = []
        for first, last in (*((at, at) for at in range(count)), *((at, at + 1) for at in range(count - 1))):
            stage = self.model.stage(first, last)
            if stage not in found:
                found[stage] = len(distinct)
                distinct.append((first, last))
            index.append(found[stage])
        return distinct, np.array(index, dtype=np.intp)
