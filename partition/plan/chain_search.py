"""The dynamic program of `split.py` for a chain given as a table, where a thousand layers are ordinary.

What a stage takes is a difference of running sums, so all stages that end in a block of layers are priced as one array:

                    last layer of the stage
    first layer     a      a+1    ...
      lo            too long for the bound: the search leaves these out, and with them all above
      ...           sum of the stages before + seconds of the stage
      a             the least of each column is kept, with its row
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partition.costs import Chain
from partition.plan.split import BOTTLENECK, SUM, Criterion, Link, State

_BLOCK = 128
"""Last layers priced at once."""
_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device as a split sees it."""

    name: str
    slowdown: float
    """Seconds over those of the table."""
    limit_bytes: int | None
    """None: memory is not looked at."""


@dataclass(frozen=True, kw_only=True)
class ChainProblem:
    """A table to cut into exactly `num_stages` non-empty stages, on devices in their order."""

    chain: Chain
    num_stages: int
    num_microbatches: int
    places: tuple[Place, ...]
    bytes_per_s: Callable[[int, int], float]
    """Between two devices by index; may be infinite."""
    first_alike: tuple[int, ...]
    """For each device the first of its run of neighbours that are alike, their links too."""

    def in_flight(self, stage: int) -> int:
        """Microbatches that a stage keeps at once under 1F1B."""
        return min(self.num_microbatches, self.num_stages - stage)


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

    def stage_s(self, place: Place, firsts: slice, lasts: slice) -> _Floats:
        """Forward and backward seconds by first layer (down) and last layer (across); below 0 where last < first."""
        ends = self.seconds[lasts.start + 1 : lasts.stop + 1]
        taken_s: _Floats = (ends[None, :] - self.seconds[firsts][:, None]) * place.slowdown
        return taken_s

    def stage_bytes(self, stage: int, firsts: slice, lasts: slice) -> _Floats:
        """Bytes of the same stages: parameters, gradients, optimizer, what is kept, two buffers for each cut."""
        ends = slice(lasts.start + 1, lasts.stop + 1)
        static = self.static[ends][None, :] - self.static[firsts][:, None]
        saved = self.saved[ends][None, :] - self.saved[firsts][:, None]
        buffers = 2 * (self.cut_bytes[ends][None, :] + self.cut_bytes[firsts][:, None])
        # In floats, as 16,384 microbatches of an exbibyte are no 64-bit integer; exact below 2**53.
        held: _Floats = (static + buffers).astype(np.float64) + self.problem.in_flight(stage) * saved.astype(np.float64)
        return held

    def cut_s(self, device: int, following: int) -> _Floats:
        """Seconds of an activation and its gradient, by the number of layers before the cut."""
        taken_s: _Floats = 2 * self.cut_bytes / self.problem.bytes_per_s(device, following)
        return taken_s


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
        found = _Reached(
            np.full(num_layers + 1, math.inf), np.full(num_layers + 1, math.inf),
            np.zeros(num_layers + 1, dtype=np.int64), previous,
        )  # fmt: skip
        # Every other stage takes a layer at least; the last one takes all that are left.
        stop = num_layers - (num_stages - 1 - stage)
        start = num_layers - 1 if stage == num_stages - 1 else stage
        for block in range(start, stop, _BLOCK):
            lasts = slice(block, min(block + _BLOCK, stop))
            firsts = slice(max(stage, self._first_within(device, block)), lasts.stop)
            costs = self._costs(stage, device, firsts, lasts)
            if criterion == SUM:
                values = sum_s[firsts][:, None] + costs
            else:
                values = np.maximum(bottleneck_s[firsts][:, None], costs)
            rows = values.argmin(axis=0)
            columns = np.arange(lasts.stop - lasts.start)
            ends = slice(lasts.start + 1, lasts.stop + 1)
            found.sum_s[ends] = sum_s[firsts][rows] + costs[rows, columns]
            found.bottleneck_s[ends] = np.maximum(bottleneck_s[firsts][rows], costs[rows, columns])
            found.first_layer[ends] = rows + firsts.start
        return found

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
            cut_s = np.where(cut_s <= self.bound, cut_s, math.inf)
            way = (reached.sum_s + cut_s, np.maximum(reached.bottleneck_s, cut_s))
            is_better = way[criterion] < (sum_s, bottleneck_s)[criterion]
            sum_s, bottleneck_s = (
                np.where(is_better, way[SUM], sum_s),
                np.where(is_better, way[BOTTLENECK], bottleneck_s),
            )
            previous[is_better] = other
        return sum_s, bottleneck_s, previous

    def _costs(self, stage: int, device: int, firsts: slice, lasts: slice) -> _Floats:
        """What each stage of a block takes; infinite where it is none, above the bound, or does not fit."""
        place = self.problem.places[device]
        if self.of_memory:
            costs = self.tables.stage_bytes(stage, firsts, lasts) / (place.limit_bytes or math.inf)
        else:
            costs = self.tables.stage_s(place, firsts, lasts)
        is_stage = np.arange(firsts.start, firsts.stop)[:, None] <= np.arange(lasts.start, lasts.stop)[None, :]
        self._refuse(costs[is_stage])
        is_admitted = is_stage & (costs <= self.bound)
        if place.limit_bytes is not None and not self.of_memory:
            is_admitted &= self.tables.stage_bytes(stage, firsts, lasts) <= place.limit_bytes
        return np.where(is_admitted, costs, math.inf)

    def _first_within(self, device: int, last: int) -> int:
        """A first layer before which every stage that ends in `last` or later is above the bound, less one."""
        if self.of_memory or self.bound == sys.float_info.max:
            return 0
        sums = self.tables.seconds
        earliest = sums[last + 1] - self.bound / self.problem.places[device].slowdown * (1 + 1e-9)
        return max(0, int(np.searchsorted(sums, earliest, side="left")) - 1)

    def _refuse(self, values: _Floats) -> None:
        """Note the smallest value above the bound."""
        above = values[values > self.bound]
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
