"""The dynamic program of `split.py` for a chain given as a table, where a thousand layers are ordinary.

What a stage takes is a difference of running sums, so all stages that end in a block of layers are priced as one array:

                          first layer of the stage
    last layer a          a-3    a-2    a-1    a
    last layer a+1        a-2    a-1    a      a+1        as wide as the longest stage that the bound admits

To each is added what the stages before it take; the least of a row is kept, with its column.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from partition.plan.chain_problem import ChainProblem, Place
from partition.plan.split import BOTTLENECK, SUM, Criterion, Link, State

_BLOCK = 256
"""Last layers priced at once."""
_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class ChainTables:
    """Running sums over the layers of a problem."""

    def __init__(self, problem: ChainProblem) -> None:
        self.problem = problem
        layers = problem.chain.layers
        self.num_layers = len(layers)
        self.seconds: _Floats = np.cumsum([0.0, *(layer.forward_s + layer.backward_s for layer in layers)])
        static = [0, *(2 * layer.parameter_bytes + layer.optimizer_bytes for layer in layers)]
        self.static: _Integers = np.cumsum(np.array(static, dtype=np.int64))
        self.saved: _Integers = np.cumsum(np.array([0, *(layer.saved_bytes or 0 for layer in layers)], dtype=np.int64))
        # By the number of layers before a cut; at both ends of the chain nothing is sent.
        inner = [layer.activation_bytes for layer in layers[:-1]]
        self.cut_bytes = np.array([0, *inner, 0], dtype=np.int64)
        self.is_cut_refused = np.ones(self.num_layers + 1, dtype=bool)
        self.is_cut_refused[list(problem.honoured.edges)] = False

    def band(self, lasts: slice, width: int, place: Place) -> _Band:
        """The stages that end in a block of layers and have at most `width` layers."""
        ends = slice(lasts.start + 1, lasts.stop + 1)

        def difference(sums: NDArray[Any]) -> NDArray[Any]:
            found: NDArray[Any] = sums[ends][:, None] - _windows(sums[: lasts.stop], lasts, width)
            return found

        # A first layer before the chain's is none.
        seconds = difference(self.seconds) * place.slowdown
        seconds[_windows(np.arange(lasts.stop), lasts, width, padding=-1) < 0] = math.inf
        if place.limit_bytes is None:
            return _Band(lasts, width, seconds, None, None)
        # In floats, as 16,384 microbatches of an exbibyte are no 64-bit integer; exact below 2**53.
        buffers = self.cut_bytes[ends][:, None] + _windows(self.cut_bytes[: lasts.stop], lasts, width)
        held = (difference(self.static) + 2 * buffers).astype(np.float64)
        return _Band(lasts, width, seconds, held, difference(self.saved).astype(np.float64))

    def is_refused(self, device: int, band: _Band) -> NDArray[np.bool_]:
        """Which stages of a band reach over layers that are pinned to another device."""
        lasts, width = band.lasts, band.width
        earliest: _Integers = np.array(self.problem.honoured.earliest(device)[lasts.start + 1 : lasts.stop + 1])
        return _windows(np.arange(lasts.stop), lasts, width, padding=-1) < earliest[:, None]

    def cut_s(self, device: int, following: int) -> _Floats:
        """Seconds of an activation and its gradient, by the number of layers before the cut."""
        taken_s: _Floats = 2 * self.cut_bytes / self.problem.bytes_per_s(device, following)
        return taken_s


class _Band(NamedTuple):
    """Figures of stages by last layer (down) and first layer (across, the last column is the last layer itself)."""

    lasts: slice
    width: int
    seconds: _Floats
    """Infinite where there is no such stage, or it is left out."""
    held_bytes: _Floats | None
    """Parameters, gradients, optimizer, two buffers for each cut; None where memory is not looked at."""
    saved_bytes: _Floats | None
    """Kept for each microbatch in flight."""

    def stage_bytes(self, in_flight: int) -> _Floats:
        """Bytes of the stages that keep so many microbatches."""
        assert self.held_bytes is not None
        assert self.saved_bytes is not None
        return self.held_bytes + in_flight * self.saved_bytes


def _windows(values: NDArray[Any], lasts: slice, width: int, padding: float = 0) -> NDArray[Any]:
    """The `width` values up to each of a block of positions, one row for each; padded before the first value."""
    start = lasts.start - width + 1
    padded = np.concatenate((np.full(max(0, -start), padding, dtype=values.dtype), values[max(0, start) : lasts.stop]))
    return sliding_window_view(padded, width)


class _Reached(NamedTuple):
    """The best ways to place some stages, the last of them on one device, by the number of layers covered."""

    sum_s: _Floats
    bottleneck_s: _Floats
    first_layer: _Integers
    """Of the last stage."""
    previous: _Integers
    """Device of the stage before, by the number of layers before the last stage."""


class ChainSearch:
    """The splits of a table whose bottleneck is at most a bound."""

    def __init__(self, tables: ChainTables, bound: float, *, of_memory: bool = False) -> None:
        self.tables = tables
        self.problem = tables.problem
        # What does not fit takes infinitely long, and no bound admits it.
        self.bound = min(bound, sys.float_info.max)
        self.of_memory = of_memory
        """A stage costs its share of its device's memory instead of seconds, and always fits."""
        self.next_bound = math.inf
        self._known_bands: dict[tuple[float, bool], list[_Band]] = {}

    def best(self, criterion: Criterion) -> State | None:
        """The state of all stages with the least sum, or the least bottleneck, and nothing above the bound."""
        num_stages, reached = self.problem.num_stages, list[dict[int, _Reached]]()
        for stage in range(num_stages):
            reached.append(
                {
                    device: self._place(stage, device, criterion, reached[-1] if reached else {})
                    for device in self._devices(stage, reached[-1] if reached else {})
                }
            )
        end = self.tables.num_layers
        last = min(reached[-1], key=lambda device: float(_chosen(reached[-1][device], criterion)[end]), default=None)
        if last is None or not math.isfinite(_chosen(reached[-1][last], criterion)[end]):
            return None
        found = reached[-1][last]
        return float(found.sum_s[end]), float(found.bottleneck_s[end]), _link(reached, last, end)

    def _devices(self, stage: int, before: dict[int, _Reached]) -> list[int]:
        """The devices that leave room for the stages before and after; of those alike the first that is free."""
        alike = self.problem.first_alike
        room = range(stage, stage + len(alike) - self.problem.num_stages + 1)
        return [device for device in room if device == alike[device] or device - 1 in (before or {-1})]

    def _place(self, stage: int, device: int, criterion: Criterion, before: dict[int, _Reached]) -> _Reached:
        """Every way to end a stage on a device."""
        num_layers, num_stages = self.tables.num_layers, self.problem.num_stages
        sum_s, bottleneck_s, previous = self._begin(stage, device, criterion, before)
        size = num_layers + 1
        found = _Reached(np.full(size, math.inf), np.full(size, math.inf), np.zeros(size, dtype=np.int64), previous)
        # A stage takes a layer at least, and so does every one to come; the last one takes all that are left.
        stop = num_layers - (num_stages - 1 - stage)
        start = num_layers - 1 if stage == num_stages - 1 else stage
        for band in self._bands(self.problem.places[device]):
            if band.lasts.start < stop and band.lasts.stop > start:
                self._extend(found, band, self._costs(stage, device, band), (sum_s, bottleneck_s), criterion)
        for ends in (slice(0, start + 1), slice(stop + 1, size)):
            found.sum_s[ends] = found.bottleneck_s[ends] = math.inf
        return found

    def _extend(
        self, found: _Reached, band: _Band, costs: _Floats, before: tuple[_Floats, _Floats], criterion: Criterion
    ) -> None:
        """Add a stage of a band to what comes before it."""
        sum_s, bottleneck_s = (_windows(of[: band.lasts.stop], band.lasts, band.width, math.inf) for of in before)
        values = sum_s + costs if criterion == SUM else np.maximum(bottleneck_s, costs)
        rows, columns = np.arange(len(costs)), values.argmin(axis=1)
        ends = slice(band.lasts.start + 1, band.lasts.stop + 1)
        found.sum_s[ends] = sum_s[rows, columns] + costs[rows, columns]
        found.bottleneck_s[ends] = np.maximum(bottleneck_s[rows, columns], costs[rows, columns])
        found.first_layer[ends] = rows + columns + band.lasts.start - band.width + 1

    def _begin(
        self, stage: int, device: int, criterion: Criterion, before: dict[int, _Reached]
    ) -> tuple[_Floats, _Floats, _Integers]:
        """Sum and bottleneck before a stage on a device, its cut included, by the number of layers covered."""
        size = self.tables.num_layers + 1
        sum_s, bottleneck_s = np.full(size, math.inf), np.full(size, math.inf)
        previous = np.full(size, -1, dtype=np.int64)
        if stage == 0:
            sum_s[0] = bottleneck_s[0] = 0.0
        for other, reached in before.items():
            if not (other < device and (device == other + 1 or device == self.problem.first_alike[device])):
                continue
            cut_s = np.zeros(size) if self.of_memory else self.tables.cut_s(other, device)
            self._refuse(cut_s)
            cut_s = np.where((cut_s <= self.bound) & ~self.tables.is_cut_refused, cut_s, math.inf)
            way = (reached.sum_s + cut_s, np.maximum(reached.bottleneck_s, cut_s))
            is_better = way[criterion] < (sum_s, bottleneck_s)[criterion]
            sum_s, bottleneck_s = (
                np.where(is_better, way[SUM], sum_s),
                np.where(is_better, way[BOTTLENECK], bottleneck_s),
            )
            previous[is_better] = other
        return sum_s, bottleneck_s, previous

    def _costs(self, stage: int, device: int, band: _Band) -> _Floats:
        """What each stage of a band takes; infinite where it is none, is refused, above the bound, or does not fit."""
        costs = self._costs_unpinned(stage, device, band)
        if not self.problem.honoured.pins:
            return costs
        return np.where(self.tables.is_refused(device, band), math.inf, costs)

    def _costs_unpinned(self, stage: int, device: int, band: _Band) -> _Floats:
        limit_bytes, in_flight = self.problem.places[device].limit_bytes, self.problem.in_flight(stage)
        if limit_bytes is None:
            return np.where(band.seconds < math.inf, 0.0, math.inf) if self.of_memory else band.seconds
        held = band.stage_bytes(in_flight)
        if not self.of_memory:
            return np.where(held <= limit_bytes, band.seconds, math.inf)
        shares = held / limit_bytes
        return np.where((shares <= self.bound) & (band.seconds < math.inf), shares, math.inf)

    def _bands(self, place: Place) -> list[_Band]:
        """All stages on a device that the bound admits, block by block; made once for devices of one kind."""
        kind = (place.slowdown, place.limit_bytes is None)
        if kind not in self._known_bands:
            blocks = [slice(at, min(at + _BLOCK, self.tables.num_layers))
                      for at in range(0, self.tables.num_layers, _BLOCK)]  # fmt: skip
            self._known_bands[kind] = [self._bounded(block, place) for block in blocks]
        return self._known_bands[kind]

    def _bounded(self, lasts: slice, place: Place) -> _Band:
        """A block of stages, those above the bound left out and the least of them noted."""
        band = self.tables.band(lasts, self._width(lasts, place), place)
        if not self.of_memory:
            self._refuse(band.seconds)
            band.seconds[band.seconds > self.bound] = math.inf
        return band

    def _width(self, lasts: slice, place: Place) -> int:
        """More layers than any stage has that ends in a block and keeps to the bound."""
        longest = int(lasts.stop)
        if self.of_memory or self.bound == sys.float_info.max:
            return longest
        ends = self.tables.seconds[lasts.start + 1 : lasts.stop + 1]
        earliest = ends - self.bound / place.slowdown * (1 + 1e-9)
        firsts = np.searchsorted(self.tables.seconds, earliest, side="left")
        widest = int((np.arange(lasts.start, lasts.stop) - firsts).max())
        return min(longest, widest + 2)

    def _refuse(self, values: _Floats) -> None:
        """Note the smallest value above the bound; what is infinite is no stage."""
        above = values[(values > self.bound) & (values < math.inf)]
        if above.size:
            self.next_bound = min(self.next_bound, float(above.min()))


def _chosen(reached: _Reached, criterion: Criterion) -> _Floats:
    return reached.sum_s if criterion == SUM else reached.bottleneck_s


def _link(reached: Sequence[dict[int, _Reached]], device: int, end: int) -> Link | None:
    """The stages that lead to a state, in the form of `split.State`."""
    stages = []
    for of_stage in reversed(reached):
        found = of_stage[device]
        first = int(found.first_layer[end])
        stages.append((device, first, end - 1))
        device, end = int(found.previous[first]), first
    link: Link | None = None
    for device, first, last in reversed(stages):
        link = (link, device, first, last)
    return link
